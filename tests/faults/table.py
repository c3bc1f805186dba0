"""Put what ``make faults`` found into the README, between its two markers.

table.py OUTCOMES.json README.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.implementations import GATEWAY, LIBRARIES
from faults.scenarios import HOLDS, SCENARIOS

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"

GATEWAY_FAULTS = (
    (1, "50 starts at once on one port", "test_fifty_racing_starters_have_one_winner"),
    (2, "SIGKILL at every system call of start and stop", "test_a_kill_at_any_system_call_leaves_nothing_in_the_way"),
    (2, "SIGKILL in the middle of an executed start", "test_a_kill_of_an_executed_gateway_leaves_nothing_in_the_way"),
    (6, "removed lock file made anew within a tick", "test_removed_lock_file_is_made_anew_and_a_second_start_refused_meanwhile"),
    (7, "state directory moved: owner stops, not with 78", "test_state_directory_moved_away_stops_the_daemon_but_not_with_78"),
    (14, "reused pid", "test_reused_pid_does_not_hold_up_a_start"),
    (15, "record of an earlier boot, or of another process with that pid", "test_record_without_flock_of_the_wrong_process_does_not_hold_us_up"),
    (17, "owner named `a) S 1 2`", "test_owner_of_any_name_is_recognized"),
    (21, "unreadable record, lock held: owner as the kernel names it, or unknown; not 78", "test_unreadable_record_of_a_held_lock_leaves_the_kernels_word_and_is_not_78 test_unreadable_record_of_an_invisible_owner_is_an_unknown_owner_and_not_78"),
    (23, "reader during rewrites of the record", "test_reader_never_sees_a_torn_record"),
    (27, "lock directory a symlink, foreign or writable by others", "test_symlink_in_the_lock_directorys_place_is_refused test_lock_directory_that_others_may_write_to_is_refused_and_not_mended test_state_directory_of_someone_else_is_refused"),
    (28, "ENOSPC, EMFILE, ENOLCK, EIO, EINTR and more at every call of the claim", "test_every_failing_call_ends_in_success_or_in_a_clear_error"),
    (32, "one state through two layers of an overlay", "test_state_reached_through_two_layers_of_an_overlay_is_guarded_by_the_port"),
    (32, "one state in two network namespaces", "test_one_state_directory_in_two_network_namespaces_has_one_gateway"),
    (33, "owner stopped, starter under systemd: 75, never 78", "test_hung_owner_under_systemd_is_waited_for_then_75_never_78"),
    (35, "owner holds the lock and does not listen yet", "test_starting_owner_is_waited_for_and_then_recognized"),
    (35, "gateway of OpenClaw's own holds its locks and does not listen yet", "test_gateway_that_holds_its_locks_and_does_not_listen_yet_is_never_reclaimed test_each_of_its_locks_alone_is_enough test_a_kill_of_a_start_that_meets_openclaws_gateway_leaves_its_records test_lock_of_openclaws_gateway_that_cannot_be_asked_about_is_not_taken_for_free"),
    (37, "stranger on the port that answers", "test_program_that_is_no_gateway_is_named_and_left_alone"),
    (38, "gateway on another address of the port", "test_base_port_excludes_other_addresses"),
    (39, "rival bound and not listening", "test_rival_that_is_bound_but_does_not_listen_counts_as_busy"),
    (40, "rival of the same user with SO_REUSEPORT", "test_rival_of_the_same_user_cannot_share_the_port"),
    (41, "port in TIME_WAIT", "test_port_in_time_wait_is_taken_at_once"),
    (43, "no process of ours could inherit a lock", "test_gateway_makes_no_process_that_could_keep_its_locks"),
    (45, "SIGKILL at every system call of a start with kept listeners: who waits is served by the next", "test_a_kill_at_any_system_call_leaves_who_waits_to_the_next_start"),
    (45, "restart, crash, stop and another port, with what systemd keeps", "test_nobody_is_refused_and_no_port_stays_behind test_the_gateway_goes_every_way_that_the_model_goes test_client_that_waits_in_the_backlog_outlives_a_crash"),
    (46, "activated duplicate", "test_activated_duplicate_turns_away_who_waits_so_that_it_is_not_activated_again"),
    (48, "owner's or starter's clock shifted by a time namespace", "test_owner_in_a_time_namespace_is_recognized test_starter_in_a_time_namespace_recognizes_the_owner"),
    (50, "race between each check and its use, thirteen of them", "test_race_is_won test_race_is_lost_without_its_fix"),
    (0, "torture", "test_torture_finds_no_two_owners_and_nothing_left_in_the_way"),
    (0, "torture of two units, each the other's standby", "test_two_units_that_stand_by_for_each_other_are_never_both_owners"),
    (0, "connects, polite and rude", "test_connects_leave_memory_and_descriptors_where_they_were"),
    (0, "idling", "test_hours_of_idling_leave_memory_and_descriptors_where_they_were test_idle_gateway_is_rarely_woken"),
    (0, "model of the claim, and the code along its paths", "test_there_is_never_more_than_one_owner test_each_part_is_needed test_of_ours_and_openclaws_gateways_one_is_the_owner test_no_record_of_a_living_gateway_is_removed_or_written_over test_beside_openclaws_gateway_each_part_is_needed test_the_code_makes_the_models_steps_while_someone_interferes"),
    (0, "cluster: active host ended, by SIGTERM and by SIGKILL", "test_ends"),
    (0, "cluster: active host stopped for good (SIGSTOP), its child deaf too", "test_stopped_for_good"),
    (0, "cluster: active host stopped past its deadline and continued; frozen by its cgroup", "test_stopped_past_its_deadline_and_continued test_frozen_by_its_cgroup"),
    (0, "cluster: event loop that hangs; thread that hangs", "test_a_loop_that_hangs_does_not_renew test_a_thread_that_hangs_is_left_to_itself"),
    (0, "cluster: way to etcd cut, both ways or answers only, its child deaf too; answers that drip", "test_cut test_cut_for_a_deaf_child test_dripping"),
    (0, "cluster: link of the kernel's down, or one way", "test_link_of_the_kernels"),
    (0, "cluster: renewal written and its answer lost; one endpoint of three reachable", "test_a_renewal_that_was_written_without_an_answer_keeps_the_tenure test_only_one_endpoint_can_be_reached"),
    (0, "cluster: hosts with different leases, three standbys, a standby in a time namespace", "test_hosts_with_different_leases test_three_standbys test_standby_with_another_boot_time"),
    (0, "cluster: etcd's leader killed; stopped for 8.5 s and resumed, beside an etcd lease", "test_leader_killed test_leader_stopped_and_resumed"),
    (0, "cluster: etcd's quorum lost, all nodes restarted, compacted, full", "test_quorum_lost_and_back test_all_nodes_restarted test_compaction_and_defragmentation test_full_database"),
    (0, "cluster: etcd's passwords, tokens and their revision", "test_passwords_tokens_and_their_revision"),
    (0, "cluster: model of the record, with every part left out once", "test_there_is_never_a_second_active_gateway test_hosts_with_different_leases_agree test_one_is_active_of_as_many_hosts_as_there_is_time_for test_each_part_is_needed test_from_wherever_it_got_somebody_can_become_active"),
)  # fmt: skip
"""Number, what a reader calls it, and the tests that show it."""


def matrix(outcomes: dict[str, dict[str, str]]) -> list[str]:
    """Return the table of all implementations."""
    names = (GATEWAY, *LIBRARIES)
    lines = [f"| fault | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for scenario in SCENARIOS:
        run = scenario.run.__name__
        cells = []
        for name in names:
            test = (
                f"test_gateway_holds[{run}]" if name == GATEWAY else f"test_control[{run}-{name}]"
            )
            found = next((o for node, o in outcomes.items() if node.endswith(f"::{test}")), None)
            cells.append(found.get("verdict", found["outcome"]) if found else "not run")
        lines.append(f"| {scenario.title} | {' | '.join(cells)} |")
    return lines


def outcome_of(test: str, outcomes: dict[str, dict[str, str]]) -> str:
    """Return what became of a test with all its parameters: ``passed`` only if each of them did."""
    found = {o["outcome"] for node, o in outcomes.items() if re.search(rf"::{test}(\[|$)", node)}
    return ", ".join(sorted(found - {"passed"})) or ("passed" if found else "not run")


def figures_of(test: str, outcomes: dict[str, dict[str, str]]) -> list[str]:
    """Return what a test measured, where it noted that as its property ``figures``."""
    of_it = (o for node, o in outcomes.items() if re.search(rf"::{test}(\[|$)", node))
    return [outcome["figures"] for outcome in of_it if "figures" in outcome]


def gateway_faults(
    outcomes: dict[str, dict[str, str]],
    faults: Sequence[tuple[int, str, str]] = GATEWAY_FAULTS,
) -> list[str]:
    """Return the table of what only a gateway can suffer: ``holds`` if every test of a row says so."""
    lines = ["| fault | openclaw-gateway |", "|---|---|"]
    for _, title, tests in faults:
        bad = {outcome_of(test, outcomes) for test in tests.split()} - {"passed"}
        verdict = ", ".join(sorted(bad)) or HOLDS
        figures = [figure for test in tests.split() for figure in figures_of(test, outcomes)]
        said = f"{verdict}: {'; '.join(figures)}" if figures else verdict
        lines.append(f"| {title} | {said} |")
    return lines


def main() -> None:
    outcomes = json.loads(Path(sys.argv[1]).read_text())
    readme = Path(sys.argv[2])
    text = readme.read_text()
    tables = "\n".join([*matrix(outcomes), "", *gateway_faults(outcomes)])
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")


if __name__ == "__main__":
    main()
