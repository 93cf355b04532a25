"""Ray Tune's population based training, for trainings with a fixed last epoch."""

from ray.tune.schedulers import PopulationBasedTraining


class Population(PopulationBasedTraining):
    """Neither changes nor copies a member that has trained its last epoch.

    New values could no longer change that member, and a member that copied its state would have no epoch left to train
    with new values.

    epochs: of each member.
    """

    def __init__(self, epochs: int, **options) -> None:
        super().__init__(**options)
        self._epochs = epochs

    def on_trial_result(self, tune_controller, trial, result) -> str:
        if result["row/epoch"] >= self._epochs:
            return self.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)
