"""Which objective a config names: one of clray's, or a class of the user's."""

from clray.config.sections import ObjectiveConfig
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel
from clray.training.objectives.batch_contrast import BatchContrast
from clray.training.objectives.classification import Classification
from clray.training.objectives.equipartition import Equipartition
from clray.training.objectives.kernel_contrast import KernelContrast
from clray.training.objectives.pair_contrast import PairContrast
from clray.training.objectives.port import Objective
from clray.training.objectives.prototype_contrast import PrototypeContrast
from clray.training.objectives.queue_contrast import QueueContrast
from clray.user_code import import_named


def build_objective(settings: ObjectiveConfig, model: ContrastiveModel) -> Objective:
    """The objective that the settings name, for an unwrapped model."""
    return objective_class(settings)(settings, model)


def objective_class(settings: ObjectiveConfig) -> type[Objective]:
    """The class of the objective.

    Raises:
        UserError: a class of the user's that cannot be imported, or is no objective.
    """
    if settings.is_own:
        return _own_class(settings.name)
    if settings.is_classification:
        return Classification
    if settings.name == "swav":
        return Equipartition
    if settings.name == "ccl-k":
        return KernelContrast
    if settings.name == "pcl":
        return PrototypeContrast
    if settings.negatives == "queue":
        return QueueContrast
    return PairContrast if settings.form == "pair-sampled" else BatchContrast


def _own_class(name: str) -> type[Objective]:
    found, where = import_named(name, "objective.name"), f"objective.name={name}"
    if not (isinstance(found, type) and issubclass(found, Objective)):
        shown = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise UserError(f"{where}: expected a subclass of clray.Objective; got {shown}")
    if found.loss is Objective.loss and found.__call__ is Objective.__call__:
        raise UserError(f"{where}: {found.__name__} must define loss(self, batch); it has none")
    views = found.num_views
    if isinstance(views, bool) or not isinstance(views, int) or views < 1:
        raise UserError(f"{where}: {found.__name__}.num_views must be a whole number, at least 1; got {views!r}")
    return found
