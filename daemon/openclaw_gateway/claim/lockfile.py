"""Locks on the file system: the state directory's, and lock files with a record in them.

``flock`` on a descriptor that stays open is the lock; the kernel frees it when we die, whatever
way. Records are for readers. There is no reclaim path: a crash leaves a file that nobody has
locked, and the next start takes it over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from openclaw_gateway.claim.decision import Obstacle
from openclaw_gateway.claim.record import (
    LockRecord,
    believable,
    encode,
    parse,
)
from openclaw_gateway.errors import StorageError
from openclaw_gateway.host import process
from openclaw_gateway.protocol.fields import MAX_RECORD_BYTES

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK: a FIFO in the file's place must not hang us. No O_TRUNC: a loser must not erase the
# holder's record. Descriptors are close-on-exec (PEP 446), so no child keeps a lock alive.
_FILE_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
# Sticky: systemd-tmpfiles passes over sticky files, and before version 254 only over those; see
# tmpfiles.d(5), "Age". For a file the kernel gives the bit no meaning.
_FILE_MODE = 0o1600
_YOUNG_S = 15.0
"""Seconds; half of the 30 after which OpenClaw's gateway takes a file without a record for nobody's."""


class Contended(Exception):
    """
    Someone has what we came for; not an error yet, as waiting may help.

    Attributes:
        obstacle: What is in the way.
        record: What its owner says of itself, if it can be read.
        pid: Whom the kernel names as its holder, if it names one.
        uid: That one's user, if known.
        address: Where the owner listens, if known: an IP literal and a port.
    """

    def __init__(
        self,
        obstacle: Obstacle,
        *,
        record: LockRecord | None = None,
        pid: int | None = None,
        uid: int | None = None,
        address: tuple[str, int] | None = None,
    ) -> None:
        super().__init__(obstacle)
        self.obstacle, self.record, self.pid, self.uid = obstacle, record, pid, uid
        self.address = address


class DirectoryLock:
    """
    An exclusive ``flock`` on a directory itself.

    A directory with something in it can't be unlinked, ``rm *.lock`` does not touch it, and cleaners
    of temporary files pass over it; while it is held, a lock file inside that was lost can be made
    anew without a race.

    Attributes:
        path: The directory, canonical.
        fd: Its descriptor.
    """

    def __init__(self, path: str) -> None:
        """
        Create the directory if it is missing (mode 0700) and lock it.

        Raises:
            Contended: Another process holds it. Nothing is left open.
            StorageError: It can't be created, opened or locked, it is somebody else's, or others
                may write to it. Nothing is left open.
        """
        self.path = os.path.realpath(path)
        with ExitStack() as undo, _blaming(self.path):
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            self.fd = os.open(self.path, _DIRECTORY_FLAGS)
            undo.callback(os.close, self.fd)
            _check_directory(self.path, os.fstat(self.fd))
            if not _try_flock(self.fd, self.path):
                raise Contended(Obstacle.STATE_DIRECTORY, pid=_holder(self.fd))
            self._check_exclusion()
            undo.pop_all()

    def _check_exclusion(self) -> None:
        """Lock once more through a second descriptor: where that succeeds, locks exclude nobody."""
        # By the descriptor and not by the path, which may lead elsewhere by now.
        rival = os.open(".", _DIRECTORY_FLAGS, dir_fd=self.fd)
        try:
            if _try_flock(rival, self.path):
                raise StorageError(
                    self.path,
                    "its file system grants the same lock twice",
                    hint="put the state directory on a local file system (--state-dir)",
                )
        finally:
            os.close(rival)

    def problem(self) -> str | None:
        """Return why the path no longer leads to the directory that we hold, or ``None`` if it does."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
            same = os.path.samestat(there, os.fstat(self.fd))
        except OSError as error:
            return os.strerror(error.errno or 0)
        return None if same else "replaced by another directory"

    def release(self) -> None:
        """Close the descriptor, and with it the lock."""
        os.close(self.fd)


class LockFile:
    """
    A file in the lock directory that we hold an exclusive ``flock`` on, with one record in it.

    Attributes:
        path: For messages.
    """

    def __init__(self, state: DirectoryLock, name: str) -> None:
        """
        Open or create ``<state dir>/tmp/openclaw-<uid>/<name>`` and lock it, without waiting.

        Raises:
            Contended: Another process holds it. Nothing is left open, and the file as it was.
            StorageError: What stands there is no file or directory of ours, or can't be made or locked.
        """
        self._state, self._name = state, name
        self.path = os.path.join(state.path, *lock_directory_parts(), name)
        while not self._open():
            pass

    def _open(self) -> bool:
        """Open the file and lock it; ``False``, with nothing left open, if it lost its name meanwhile."""
        # 1. We open an inode. 2. Its holder unlinks it and exits. 3. Our flock succeeds on a file
        # without a name. 4. A third process creates and locks a new one: two owners. So compare
        # inodes once locked, and start over until name and lock are of one file. Whoever unlinks
        # does so while holding, so that it can't be our fresh file. To start over is to walk from
        # the state directory again: in a lock directory that was moved away no file ever has its name.
        with ExitStack() as undo, _blaming(self.path):
            directory = _open_lock_directory(self._state)
            undo.callback(os.close, directory)
            fd, is_new = _open_or_create(self._name, directory)
            undo.callback(os.close, fd)
            _check_file(self.path, os.fstat(fd))
            if not _try_flock(fd, self.path):
                record = parse(os.pread(fd, MAX_RECORD_BYTES + 1, 0))
                raise Contended(Obstacle.CONFIG, record=record, pid=_holder(fd))
            if not self._is_named(fd):
                return False
            self._directory, self._fd, self._is_new = directory, fd, is_new
            undo.pop_all()
            return True

    def _is_named(self, fd: int) -> bool:
        """Whether the path, walked anew from the locked state directory, leads to the inode of ``fd``."""
        steps = os.path.join(*lock_directory_parts(), self._name)
        try:
            there = os.stat(steps, dir_fd=self._state.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return os.path.samestat(there, os.fstat(fd))

    def write(self, record: LockRecord) -> None:
        """
        Replace the record in one write of fixed length.

        Raises:
            StorageError: No room. The file is locked still; what it says is undefined.
        """
        data = encode(record)
        with _blaming(self.path):
            if os.pwrite(self._fd, data, 0) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # Only now: a write that fails leaves what stood there, a dead one's record say, as it was.
            if os.fstat(self._fd).st_size > len(data):
                os.ftruncate(self._fd, len(data))  # a longer leftover

    def successor(self) -> LockFile | None:
        """
        Open and lock the file that has taken this one's name, or make it; only while the state directory is locked.

        Returns:
            The lock that is to take this one's place, with nothing written yet; ``None`` if all is as it
            was. This one stays as it is, for the caller to close.

        Raises:
            Contended: Someone else put a file there and holds it.
            StorageError: Something else stands there.
        """
        with _blaming(self.path):
            if self._is_named(self._fd):
                return None
        return LockFile(self._state, self._name)

    def writer(self) -> Contended | None:
        """
        Return who wrote the record in the file, if that process may be alive; none of ours can, as we have the lock.

        Reads the record anew: one that takes no ``flock`` writes it whenever it likes. Whoever asks for
        its locks as well asks for them first, as it has them before it writes and may let go of them
        before it takes its record away.
        """
        with _blaming(self.path):
            record = parse(os.pread(self._fd, MAX_RECORD_BYTES + 1, 0))
        if record is None or not record.is_local(process.pid_namespace()):
            return None
        if not believable(record, process.facts(record.pid), own_pid=os.getpid()):
            return None
        return Contended(Obstacle.RECORD, record=record, pid=record.pid)

    def release(self) -> None:
        """Unlink the file if it is still ours, and only then let go of the lock."""
        # A directory that became read-only or can't be read any more takes no lock from us.
        with suppress(OSError):
            if self._is_named(self._fd):
                os.unlink(self._name, dir_fd=self._directory)
        self.close()

    def abandon(self) -> None:
        """
        Let go of a file that we could not write into, and so did not win.

        It stays as it is, unless we have just made it and nobody else's record is in it: OpenClaw's gateway,
        which takes no ``flock``, would wait for whoever made it to write.
        """
        try:
            is_nobodys = self._is_new and self._is_young() and self.writer() is None
        except StorageError:
            is_nobodys = False
        if is_nobodys:
            self.release()
        else:
            self.close()

    def _is_young(self) -> bool:
        """
        Whether the file has been there for less time than OpenClaw's gateway waits for a record's writer.

        It makes a file of its own in the place of an older one, perhaps just between our look at the
        name and our unlink. Until then whatever has the name of our inode is ours.
        """
        with _blaming(self.path):
            return 0 <= time.time() - os.fstat(self._fd).st_mtime < _YOUNG_S

    def close(self) -> None:
        """Close the descriptors; the lock is free once every process that has them did."""
        os.close(self._fd)
        os.close(self._directory)


def _open_or_create(name: str, directory: int) -> tuple[int, bool]:
    """Open a file in a directory for locking, or make it; return the descriptor, and whether it was made."""
    try:
        flags = _FILE_FLAGS | os.O_CREAT | os.O_EXCL
        return os.open(name, flags, _FILE_MODE, dir_fd=directory), True
    except FileExistsError:
        pass
    # Gone since: made by whoever comes first. Whether it was us does not matter then, as for what we
    # may not remove the safe answer is "not".
    return os.open(name, _FILE_FLAGS | os.O_CREAT, _FILE_MODE, dir_fd=directory), False


def _open_lock_directory(state: DirectoryLock) -> int:
    """
    Open ``tmp/openclaw-<uid>`` step by step, so that no link leads elsewhere; create what is missing.

    Raises:
        StorageError: A link, a stranger's directory or one that others may write to is in the way.
    """
    path, fd = state.path, os.dup(state.fd)
    try:
        for name in lock_directory_parts():
            path = os.path.join(path, name)
            with _blaming(path):
                with suppress(FileExistsError):
                    os.mkdir(name, mode=0o700, dir_fd=fd)
                child = os.open(name, _DIRECTORY_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = child
            is_last = name == lock_directory_parts()[-1]
            forbidden = stat.S_IWGRP | stat.S_IWOTH if is_last else stat.S_IWOTH
            _check_directory(path, os.fstat(fd), forbidden=forbidden)
    except BaseException:
        os.close(fd)
        raise
    return fd


def lock_directory_parts(*, uid: int | None = None) -> tuple[str, str]:
    """Return the names below the state directory that lead to the lock files of ``uid`` (ours by default)."""
    return "tmp", f"openclaw-{os.geteuid() if uid is None else uid}"


def config_lock_name(config_path: str) -> str:
    """Return the lock file's name for a configuration, whichever way its path is written."""
    from hashlib import sha256

    canonical = os.path.realpath(config_path)
    return f"gateway.{sha256(os.fsencode(canonical)).hexdigest()[:8]}.lock"


STATE_LOCK_NAME = "gateway.state.lock"


def read_record(
    state_dir: str,
    name: str = STATE_LOCK_NAME,
    *,
    uid: int | None = None,
    owner_uid: int | None = None,
) -> LockRecord | None:
    """
    Read a record below a state directory as a bystander: no lock taken, nothing created.

    Args:
        state_dir: The state directory.
        name: The lock file's.
        uid: Whose gateway it is; ours by default.
        owner_uid: Whose the file must be, if what it says is to be believed; ``None`` for anybody's.

    Returns:
        ``None`` if there is none, or none that we may read.
    """
    path = os.path.join(os.path.realpath(state_dir), *lock_directory_parts(uid=uid), name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if owner_uid is not None and os.fstat(fd).st_uid != owner_uid:
            return None
        return parse(os.read(fd, MAX_RECORD_BYTES + 1))
    except OSError:  # a directory, say
        return None
    finally:
        os.close(fd)


def _try_flock(fd: int, path: str) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # ENOLCK, EBADF on NFS directories, ENOSYS
        raise StorageError(
            path,
            f"its file system can't lock it ({os.strerror(error.errno or 0)})",
            errno=error.errno,
            hint="put the state directory on a local file system (--state-dir)",
        ) from error
    return True


def _holder(fd: int) -> int | None:
    info = os.fstat(fd)
    return process.flock_holder(info.st_dev, info.st_ino)


def _check_file(path: str, info: os.stat_result) -> None:
    """Refuse anything that someone could have put there to have us write elsewhere."""
    if not stat.S_ISREG(info.st_mode):
        raise StorageError(path, "not a regular file", hint="move it away")
    if info.st_uid != os.geteuid():
        raise StorageError(path, f"owned by uid {info.st_uid}, and we are uid {os.geteuid()}")
    if info.st_nlink > 1:
        raise StorageError(path, "it has a second name (hard link)", hint="remove it")


def _check_directory(path: str, info: os.stat_result, *, forbidden: int = stat.S_IWOTH) -> None:
    """
    Refuse a directory that others than we and root have a say in; never mend what isn't ours.

    On the way to the lock directory the group may write, as umask 0002 leaves it in a home and a volume's
    set-group-ID bit in a container: who moves a name away there is noticed at our next look, and
    can't put in its place what passes for ours, as only we and root make files that are ours.
    """
    if info.st_uid not in (0, os.geteuid()):
        raise StorageError(
            path,
            f"owned by uid {info.st_uid}, and we are uid {os.geteuid()}",
            hint="run the gateway as that user, or give it a directory of its own (--state-dir)",
        )
    if info.st_mode & forbidden:
        raise StorageError(
            path,
            f"others may write to it (mode {stat.S_IMODE(info.st_mode):04o})",
            hint=f"chmod go-w {path}",
        )


@contextmanager
def _blaming(path: str) -> Iterator[None]:
    """Turn what the kernel refuses into a ``StorageError`` about ``path``."""
    try:
        yield
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: str, error: OSError) -> StorageError:
    hints = {
        errno.ENOSPC: "free some space or inodes there",
        errno.EDQUOT: "free some of the user's quota there",
        errno.EROFS: "give the gateway a directory that it can write to (--state-dir)",
        errno.ELOOP: "a symbolic link stands there: move it away",
        errno.ENOTDIR: "something that is not a directory stands in the way: move it",
        errno.EEXIST: "something that is not a directory stands there: move it away",
        errno.EISDIR: "a directory stands there: move it away",
        errno.EACCES: "run the gateway as the directory's owner, or choose another (--state-dir)",
    }
    number = error.errno or 0
    return StorageError(path, os.strerror(number), errno=number, hint=hints.get(number, ""))
