"""All series of the coordinator program, in one registry; and which nodes and models there may be series of.

Covers: putting them together. Does not cover: what each of them is (answering/answer_series.py, models/model_series.py,
membership/member_series.py), the page (common/program/metrics_page.py).
"""

from __future__ import annotations

from common.program.door_series import DoorSeries
from common.program.process_series import make_registry, show_damaged_state
from coordinator.answering.answer_series import AnswerSeries
from coordinator.membership.member_series import MemberSeries
from coordinator.membership.state import MeshState
from coordinator.models.model_series import ModelSeries
from coordinator.models.records import LoadedModels

MEMBERS, JOINING, METRICS = PORTS = ("members", "joining", "metrics")
"""What the ports are called whose connections are counted."""


class ProgramSeries:
    """Series of one coordinator. Labels are names of members and models and words of ours, never what a caller says."""

    def __init__(self, state: MeshState) -> None:
        self.state = state
        self.registry = make_registry("coordinator")
        show_damaged_state("shardmesh_coordinator", self.registry)
        self.doors = DoorSeries("shardmesh_coordinator", PORTS, self.registry)
        self.answers = AnswerSeries(self.registry)
        self.members = MemberSeries(self.registry, state)
        self.models = ModelSeries(self.registry, LoadedModels(state.directory))
        self.answers.requests.loaded = self.models.loaded
        self.answers.rounds.is_member = self.members.is_member
        self.models.serves = self.members.serves
