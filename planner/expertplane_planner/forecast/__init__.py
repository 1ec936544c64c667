"""What the coming steps will look like: predicted shares and how far a step strays from them.

`Forecast` learns online from windows of load samples and hands out a `Prediction`. Without a
history, `Prediction.from_samples` and `Prediction.from_load` make one of what there is.
"""

from .alarm import Surprise
from .covariance import FactoredCovariance
from .online import Forecast
from .params import ForecastParams
from .prediction import Prediction


__all__ = ["FactoredCovariance", "Forecast", "ForecastParams", "Prediction", "Surprise"]
