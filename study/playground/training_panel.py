"""Controls for one training experiment: set them, train a small network in seconds, compare."""

import base64
import io

import ipywidgets as widgets
import matplotlib.pyplot as plt

from study import curves
from study.playground.model import describe, experiment
from study.recipes.recipe import Recipe
from study.train import runner

MOST = 5  # experiments in one picture
WIDE = {"layout": {"width": "440px", "max_width": "100%"}, "style": {"description_width": "90px"}}


def _switch(description: str, on: bool) -> widgets.Checkbox:
    return widgets.Checkbox(on, description=description, indent=False)


class TrainingPanel(widgets.VBox):
    """The controls, a button, and the learning curves of the last experiments, on the CPU."""

    def __init__(self, base: Recipe, profile: str):
        """base: a recipe of binarized weights and activations, at that profile."""
        self.base, self.profile = base, profile
        self.records: list[dict] = []  # of what is in the picture, named by number and words
        self.trained = 0
        self.weights = _switch("binarize weights", True)
        self.activations = _switch("binarize activations", True)
        self.stochastic = _switch("stochastic binarization", False)
        self.clip = _switch("clip latent weights", True)
        self.dropout = widgets.FloatSlider(
            base.hidden_dropout, max=0.8, step=0.1, description="dropout", **WIDE
        )
        self.learning_rate = widgets.FloatLogSlider(
            base.learning_rate, min=-4, max=0, step=0.25, description="learning rate", **WIDE
        )
        self.start = widgets.Button(description="Train", button_style="primary")
        self.forget = widgets.Button(description="Forget the curves")
        self.planned = widgets.HTML()
        self.status = widgets.HTML()
        self.picture = widgets.HTML()
        switches = [self.weights, self.activations, self.stochastic, self.clip]
        buttons = widgets.HBox([self.start, self.forget])
        controls = [*switches, self.dropout, self.learning_rate]
        super().__init__([*controls, self.planned, buttons, self.status, self.picture])
        self._name_parts()
        for control in controls:
            control.observe(self._plan, "value")
        self._plan()
        self.start.on_click(self._train)
        self.forget.on_click(self._forget)

    def _name_parts(self) -> None:
        """Give the parts the classes that the style sheet names."""
        self.add_class("bnn-training")
        self.planned.add_class("bnn-planned")
        self.status.add_class("bnn-status")
        self.picture.add_class("bnn-picture")

    def recipe(self) -> Recipe:
        """The recipe that the controls say."""
        return experiment(
            self.base,
            self.weights.value,
            self.activations.value,
            self.stochastic.value,
            self.clip.value,
            self.dropout.value,
            self.learning_rate.value,
        )

    def _plan(self, _=None) -> None:
        """Say what would be trained; only what has an effect can be set."""
        self.planned.value = f"To be trained: {describe(self.recipe())}"
        self.clip.disabled = not self.weights.value
        self.stochastic.disabled = not (self.weights.value or self.activations.value)

    def _train(self, _) -> None:
        recipe = self.recipe()
        self.start.disabled = True
        self.status.value = f"Training: {describe(recipe)} ..."
        try:
            record = runner.run(recipe, self.profile, 0)
        except FloatingPointError as error:  # a rate too high
            self.status.value = f"It diverged: {error}"
            return
        finally:
            self.start.disabled = False
        self._add(record, recipe)

    def _add(self, record: dict, recipe: Recipe) -> None:
        self.trained += 1
        named = {**record["recipe"], "name": f"{self.trained}: {describe(recipe)}"}
        self.records = [*self.records, {**record, "recipe": named}][-MOST:]
        seconds = record["provenance"]["seconds"]  # of now, or of when it was trained
        error, epoch = record["test_error"], record["best_epoch"]
        self.status.value = (
            f"Experiment {self.trained}, {seconds:.1f} s of training: test error {error:.2f} % "
            f"after epoch {epoch}, the one with the lowest validation error."
        )
        self._draw()

    def _forget(self, _) -> None:
        self.records = []
        self.status.value = ""
        self.picture.value = ""

    def _draw(self) -> None:
        figure = curves.learning_curves(self.records)
        content = io.BytesIO()
        figure.savefig(content, format="svg")
        plt.close(figure)
        names = "; ".join(record["recipe"]["name"] for record in self.records)
        address = base64.b64encode(content.getvalue()).decode()
        self.picture.value = (
            f'<img style="max-width: 100%" alt="Learning curves of {names}" '
            f'src="data:image/svg+xml;base64,{address}">'
        )
