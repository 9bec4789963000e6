"""The models of the workloads; each is a function of a dropout rate, which some ignore."""

from itertools import pairwise

from torch import Tensor, nn


def mlp(dropout: float) -> nn.Module:
    """Return a perceptron for 8 x 8 digits, 64 to 128 to 10, 9,610 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(dropout), nn.Linear(128, 10))


def cnn(dropout: float) -> nn.Module:
    """Return a small convolutional network for 28 x 28 images, 32,804 parameters."""
    return _convolutional((8, 16), (256, 110), dropout)


def cnnbn(dropout: float) -> nn.Module:
    """Return `cnn` with batch norm after its convolutions, 32,852 parameters."""
    return _convolutional((8, 16), (256, 110), dropout, norm=True)


def mcmahan(dropout: float) -> nn.Module:
    """Return the CNN of McMahan et al. 2017, https://arxiv.org/abs/1602.05629, 1,663,370 parameters."""
    return _convolutional((32, 64), (3136, 512), dropout, padding=2)


def lenet(dropout: float) -> nn.Module:
    """Return the CNN of Li et al. 2021, https://arxiv.org/abs/2102.02079: 6 and 16 channels, 120 and 84 units."""
    return _convolutional((6, 16), (256, 120, 84), dropout)


def _convolutional(
    channels: tuple[int, ...], units: tuple[int, ...], dropout: float, *, padding: int = 0, norm: bool = False
) -> nn.Module:
    """Return 5 x 5 convolutions with pooling, then layers of `units`, the first of which is the flattened size."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((1, *channels)):
        layers += [nn.Conv2d(inputs, outputs, 5, padding=padding), *[nn.BatchNorm2d(outputs)] * norm]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    layers.append(nn.Flatten())
    for inputs, outputs in pairwise(units):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(units[-1], 10))


def pocket(dropout: float) -> nn.Module:
    """Return a network for 28 x 28 images that is under 25 kB as an int8 ExecuTorch file, 15,786 parameters.

    Such a file has about 2 kB, and 1.5 kB per layer, in addition to its weights: hence three layers and a head, and
    strides in place of pooling.
    """
    return _strided((16, 24, 32), dropout)


def strided(dropout: float) -> nn.Module:
    """Return a wider `pocket` to distil that from, 89,770 parameters."""
    return _strided((32, 64, 96), dropout)


def _strided(widths: tuple[int, ...], dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((1, *widths)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(16 * widths[-1], 10))


def cnn1d(dropout: float) -> nn.Module:
    """Return a 1-D CNN for windows of 6 axes x 100 samples, 7 classes, 11,159 parameters."""
    return nn.Sequential(
        nn.Conv1d(6, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(32, 48, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(48, 7),
    )


class CharacterGRU(nn.Module):
    """Next-character prediction: embedding of 8, one GRU layer of 128, a score for each character at every step."""

    def __init__(self, characters: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 8)
        self.gru = nn.GRU(8, 128, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(128, characters)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (n, steps, characters) for texts (n, steps) of character numbers."""
        hidden, _ = self.gru(self.embedding(x))
        scores: Tensor = self.output(self.dropout(hidden))
        return scores


class _Residual(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (n, outputs, height / stride, width / stride)."""
        y: Tensor = nn.functional.relu(self.body(x) + self.shortcut(x))
        return y


def resnet18(dropout: float) -> nn.Module:
    """Return the ResNet-18 of He et al. 2016, https://arxiv.org/abs/1512.03385, for small grey images, 11 million."""
    widths = (64, 64, 128, 256, 512)
    blocks = [
        _Residual(inputs if first else outputs, outputs, 2 if first and outputs > 64 else 1)
        for inputs, outputs in pairwise(widths)
        for first in (True, False)
    ]
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(512, 10),
    )
