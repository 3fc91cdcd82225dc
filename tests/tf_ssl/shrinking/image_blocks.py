"""Parts of random graphs on images and on sequences."""

from __future__ import annotations

import keras
from keras import layers, ops

from tests.tf_ssl.shrinking.graph_blocks import LENGTH, Maker

_SIZE = LENGTH  # images are 6x6


class ImageMaker(Maker):
    """Parts on `[batch, 6, 6, channels]`."""

    def conv(self, x):
        groups = self.pick(1, 1, 2, 4)
        if groups > 1:
            x = layers.Conv2D(8, 1, activation=self.act())(x)
        return layers.Conv2D(
            self.pick(4, 8, 12),
            self.pick(1, 2, 3),
            padding="same",
            groups=groups,
            use_bias=self.flag(),
            activation=self.act(),
            dilation_rate=self.pick(1, 1, 2),
        )(x)

    def conv_norm(self, x):
        x = layers.Conv2D(self.size(), 3, padding="same", use_bias=False)(x)
        return layers.Activation("relu")(layers.BatchNormalization()(x))

    def depthwise(self, x):
        return layers.DepthwiseConv2D(
            3,
            padding="same",
            depth_multiplier=self.pick(1, 2),
            activation=self.act(),
        )(x)

    def separable(self, x):
        return layers.SeparableConv2D(
            self.size(),
            3,
            padding="same",
            depth_multiplier=self.pick(1, 2),
            use_bias=self.flag(),
            activation=self.act(),
        )(x)

    def transposed(self, x):
        y = layers.Conv2DTranspose(
            self.size(), 2, strides=2, activation=self.act()
        )(x)
        return layers.AveragePooling2D(2)(y)

    def excite(self, x):
        y = layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = layers.Conv2D(3, 1, activation="relu")(y)
        return x * layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(y)

    def places(self, x):
        crop = layers.Cropping2D(1)
        return self.pick(
            layers.MaxPooling2D(3, strides=1, padding="same"),
            layers.AveragePooling2D(3, strides=1, padding="same"),
            layers.SpatialDropout2D(0.3),
            layers.Resizing(_SIZE, _SIZE),
            lambda y: crop(layers.ZeroPadding2D(1)(y)),
            lambda y: layers.MaxPooling2D(2)(layers.UpSampling2D(2)(y)),
            lambda y: layers.Permute((2, 1, 3))(y),
            lambda y: layers.Dropout(
                0.3, noise_shape=(None, 1, 1, y.shape[-1])
            )(y),
            lambda y: ops.transpose(y, (0, 2, 1, 3)),
            lambda y: y - ops.mean(y, axis=(1, 2), keepdims=True),
        )(x)

    def first(self, x):
        """Channels first for a while."""
        y = layers.Permute((3, 1, 2))(layers.Conv2D(self.size(), 1)(x))
        y = layers.BatchNormalization(axis=1)(y)
        return layers.Permute((2, 3, 1))(ops.relu(y))

    def depth_to_space(self, x):
        y = layers.Conv2D(12, 1)(x)
        y = ops.reshape(y, (-1, _SIZE, _SIZE, 2, 2, 3))
        y = ops.transpose(y, (0, 1, 3, 2, 4, 5))
        y = ops.reshape(y, (-1, 2 * _SIZE, 2 * _SIZE, 3))
        return layers.MaxPooling2D(2)(y)

    def option_a(self, x):
        more = layers.Conv2D(x.shape[-1] + 3, 3, padding="same")(x)
        return ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]]) + more


class SequenceMaker(Maker):
    """Parts on `[batch, 6, features]`."""

    def conv(self, x):
        return layers.Conv1D(
            self.size(),
            self.pick(1, 3),
            padding=self.pick("same", "causal"),
            activation=self.act(),
            use_bias=self.flag(),
        )(x)

    def recurrent(self, x):
        kind = self.pick(layers.LSTM, layers.GRU, layers.SimpleRNN)
        more = {"use_bias": self.flag(), "return_sequences": True}
        if kind is layers.GRU:
            more["reset_after"] = self.flag()
        layer = kind(self.size(), **more)
        if self.flag():
            modes = ["concat", "sum", "mul", "ave"]
            layer = layers.Bidirectional(layer, merge_mode=self.pick(*modes))
        return layer(x)

    def of_cell(self, x):
        cell = self.pick(layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)
        return layers.RNN(cell(self.size()), return_sequences=True)(x)

    def states(self, x):
        n = self.size()
        _, h, c = layers.LSTM(n, return_state=True)(x)
        second = layers.LSTM(n, return_sequences=True)
        return second(x, initial_state=[h, c])

    def conv_lstm(self, x):
        y = ops.expand_dims(x, -2)
        y = layers.ConvLSTM1D(
            self.size(), self.pick(1, 3), padding="same", return_sequences=True
        )(y)
        return ops.squeeze(y, -2)

    def time_distributed(self, x):
        y = keras.Input(x.shape[2:])
        inner = keras.Model(y, layers.Dense(self.size(), "relu")(y))
        layer = self.pick(
            layers.Dense(self.size(), self.act(), use_bias=self.flag()),
            inner,
            layers.BatchNormalization(),
        )
        return layers.TimeDistributed(layer)(x)

    def einsum(self, x):
        equation, shape, bias = self.pick(
            ("abc,cd->abd", (LENGTH, 7), "d"),
            ("abc,cde->abde", (LENGTH, 2, 3), "de"),
            ("abc,cde->abde", (LENGTH, 2, 4), "e"),
            ("abc,bcd->abd", (LENGTH, 5), "bd"),
            ("abc,cd->adb", (5, LENGTH), None),
            ("...c,cd->...d", 7, "d"),
        )
        y = layers.EinsumDense(
            equation, shape, bias_axes=bias, activation=self.act()
        )(x)
        if equation == "abc,cd->adb":
            return layers.Permute((2, 1))(y)
        return layers.Reshape((LENGTH, -1))(y) if len(y.shape) > 3 else y

    def mixer(self, x):
        y = layers.Permute((2, 1))(x)
        y = layers.Dense(self.size(), activation=self.act())(y)
        return x + layers.Permute((2, 1))(layers.Dense(LENGTH)(y))

    def attention(self, x):
        other = layers.Dense(5)(x)
        key = layers.Dense(6)(x)
        more = [{}, {"value_dim": 5}, {"output_shape": 6}, {"use_bias": False}]
        layer = layers.MultiHeadAttention(4, 3, **self.pick(*more))
        return self.pick(
            lambda: layer(x, x),
            lambda: layer(query=x, value=other, key=key),
            lambda: layer(x, other, use_causal_mask=True),
            lambda: layer(x, other, return_attention_scores=True)[0],
            lambda: layers.GroupQueryAttention(3, 4, 2)(x, other),
        )()

    def plain_attention(self, x):
        q, k = layers.Dense(5)(x), layers.Dense(5)(x)
        kind = self.pick(layers.Attention, layers.AdditiveAttention)
        return kind()([q, layers.Dense(7)(x), k])

    def own_attention(self, x):
        """Heads by reshapes, products by einsum, matmul or one operation."""
        q, k, v = (
            ops.reshape(layers.Dense(12)(x), (-1, LENGTH, 4, 3))
            for _ in range(3)
        )
        how = self.pick("einsum", "matmul", "operation")
        if how == "operation":
            y = ops.dot_product_attention(q, k, v)
        elif how == "einsum":
            scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, k) * 0.5)
            y = ops.einsum("bhqk,bkhd->bqhd", scores, v)
        else:
            q, k, v = (ops.transpose(t, (0, 2, 1, 3)) for t in (q, k, v))
            scores = ops.matmul(q, ops.swapaxes(k, -1, -2)) * 0.5
            y = ops.matmul(ops.softmax(scores), v)
            y = ops.transpose(y, (0, 2, 1, 3))
        return layers.Dense(self.size())(ops.reshape(y, (-1, LENGTH, 12)))

    def places(self, x):
        crop = layers.Cropping1D((1, 0))
        return self.pick(
            layers.MaxPooling1D(3, strides=1, padding="same"),
            layers.SpatialDropout1D(0.3),
            lambda y: crop(layers.ZeroPadding1D((1, 0))(y)),
            lambda y: ops.roll(y, 2, axis=1),
            lambda y: ops.flip(y, axis=1),
            lambda y: ops.concatenate([y[:, 2:], y[:, :2]], axis=1),
            lambda y: layers.RepeatVector(LENGTH)(ops.max(y, axis=1)),
        )(x)


class VectorMaker(Maker):
    """Parts on `[batch, features]`."""

    def bilinear(self, x):
        a, b = layers.Dense(5)(x), layers.Dense(5, activation=self.act())(x)
        return layers.Concatenate()([layers.Dot(1)([a, b]), x])

    def outer(self, x):
        a, b = layers.Dense(4)(x), layers.Dense(3)(x)
        return layers.Flatten()(ops.einsum("bi,bj->bij", a, b))

    def reduced(self, x):
        y = ops.reshape(layers.Dense(12)(x), (-1, 4, 3))
        reduce = self.pick(ops.mean, ops.max, ops.sum, ops.var)
        return reduce(y, axis=self.pick(1, 2))
