"""Ray Tune's population based training, as a training with a last epoch needs it."""

from ray.tune.schedulers import PopulationBasedTraining


class Population(PopulationBasedTraining):
    """Leaves a member alone that has trained its last epoch.

    Other values could change nothing of it any more; and a member that was given its state, to go on with other values,
    would have no epoch left to train with them. epochs: of a member.
    """

    def __init__(self, epochs: int, **given) -> None:
        super().__init__(**given)
        self._epochs = epochs

    def on_trial_result(self, tune_controller, trial, result) -> str:
        if result["row/epoch"] >= self._epochs:
            return self.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)
