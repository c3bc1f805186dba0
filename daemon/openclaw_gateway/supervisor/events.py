"""Every kind of thing that is logged: its id, its priority."""

from __future__ import annotations

from enum import Enum, IntEnum


class Priority(IntEnum):
    """syslog(3) levels, by the names that ``--log-level`` takes."""

    CRIT = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


STANDBY_STATUS = "standby behind "
"""How that of a standby begins; what follows is whom it waits for."""

CLUSTER_STANDBY_STATUS = "standby: "
"""How that of a standby in a cluster begins; what follows is who is active there."""

DEGRADED_STATUS = "degraded: "
"""How the status line of a service begins that lives and is not well; who reads it knows it by that."""


class Event(Enum):
    """
    Every kind of thing that we log: its MESSAGE_ID and its priority.

    The journal catalog explains each id; a test holds the two together.
    """

    STARTED = ("53f373c0cb9d49f3a0a1e3fcd702fffb", Priority.NOTICE)
    STOPPING = ("cd4637da8f674796b8b85298f56ab04b", Priority.NOTICE)
    STOPPED = ("66aeaa6f6e844b8a8b02b76584753711", Priority.NOTICE)
    RELOADED = ("f9a29c037cb6463ebfcd82c383e091d3", Priority.NOTICE)
    RELOAD_REFUSED = ("b98862c82610452d9c2f538434436f88", Priority.ERROR)
    CONFIG_INVALID = ("ca5dda9cec0c48569e91d6474d40fd07", Priority.ERROR)
    CONFIG_DOUBTFUL = ("49a3919a197d45a9bdccf8c10dbc55a8", Priority.WARNING)
    WAITING = ("4c7507d2803049a9a6a356943970b2c6", Priority.NOTICE)
    RECLAIMED = ("cc063e56ba3e4830b61c2a80b7a4744e", Priority.WARNING)
    NEIGHBOUR = ("3ea63e0ee1344e59ad2bd7f2976c1178", Priority.WARNING)
    DUPLICATE = ("b4113a42c86a45469006ee5946765ab3", Priority.NOTICE)
    LOCK_FAILED = ("b47f0ffd5a444ea980a22316bd998ff9", Priority.ERROR)
    STORAGE_UNUSABLE = ("c3887c83ddbb4a2c802f2fdaf0e2166a", Priority.ERROR)
    LOCK_RESTORED = ("be11bdd34d984bfbad5398726bb060af", Priority.WARNING)
    CLAIM_LOST = ("b248b3c2497a4bcda7759b3e61691495", Priority.CRIT)
    DEGRADED = ("f35e74e88fda4a8e8733944b4697f460", Priority.WARNING)
    TOKEN_CREATED = ("3813a2cefc2f461ca180c0508ca4009c", Priority.NOTICE)
    AUTH_FAILED = ("9b877f0ada884aa9b48a50af156876ef", Priority.WARNING)
    LIMIT_REACHED = ("a00384a785d745f0aeb72a6f8f485c1b", Priority.WARNING)
    EXTENSION_FAILED = ("a3337b44a86e445b90a9f50ace490ca0", Priority.ERROR)
    HANDLER_FAILED = ("fa1b2c67080e4d1fb602423b5a19235d", Priority.ERROR)
    FAILED = ("fab92ef29ec54d2e9822ce3407dcb18d", Priority.CRIT)
    LIBRARY_LOGGED = ("c53a2a9a757f4d578f8731f38cc7cc0e", Priority.WARNING)
    UNHEARD = ("9dfe84ca8462482ea4d629f8a5c7350f", Priority.WARNING)
    CHILD_STARTED = ("b2e112ab557744a6b316b4a382990eb5", Priority.INFO)
    CHILD_READY = ("0f977650bc2e4a7da69500765fbc6f60", Priority.NOTICE)
    CHILD_ENDED = ("ba16d7a7bd9b4aea94b1fbbbc0a3b5a1", Priority.ERROR)
    CLUSTER_ACTIVE = ("400bed7452df4261975ef193db12c383", Priority.NOTICE)
    CLUSTER_STANDBY = ("c11ddb40bf214a98ad2c90723b985dd1", Priority.NOTICE)
    CLUSTER_UNREACHABLE = ("ccfa83b06ead46c4ace12780ffaf1b5a", Priority.WARNING)
    TENURE_LOST = ("cbf288ca8dd042039dda7469df4125eb", Priority.CRIT)
    STANDBY = ("4c674e912b214d2e876ddbe90d07020f", Priority.NOTICE)
    TOOK_OVER = ("36e5789f08d043f281a05661560e8fd1", Priority.NOTICE)
    METRICS_UNWRITTEN = ("60c6b44ac60845bcae2dd9cdb139dfb4", Priority.WARNING)

    def __init__(self, message_id: str, priority: Priority) -> None:
        self.message_id, self.priority = message_id, priority
