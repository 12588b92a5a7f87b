# SPDX-License-Identifier: Apache-2.0
"""Toy generators of realistic inputs, one per model; energies in GeV.

Each takes (rng, items) and returns (inputs float32 [items, *dims], truth [items]); the same rng
state gives the same bytes. They have the shapes, scales and correlations of the detectors' data
(pulses, showers, prongs, tracks), not their calibration: good for training a demonstration, for
checking and for measuring; not for physics.
"""
import numpy as np

# Items per independent random stream: item i of a file depends on the seed and i // CHUNK alone, so
# a longer file starts with the shorter one, whoever writes it. Bounds memory: ≤ 10 MB of inputs each.
CHUNK = {"facile": 50_000, "deepcalo": 1_000, "resnet50": 16, "emtrkmichel": 1_000}

SLICE_NS = 25.0
TRIGGER_SLICE = 3  # the time slice in which the triggering collision's pulse begins
PULSE_TAU_NS = 12.0
PEDESTAL_FC, NOISE_FC = 3.0, 0.6
FC_PER_PHOTOELECTRON = 0.1
ENERGY_MIN_GEV, ENERGY_MAX_GEV = 0.01, 1000.0


def channels(rng, items):
    """HCAL channels: float32 [items, 47] and the true energy of the triggering collision [items].

    [0] iphi 1–72, [1] gain in GeV/fC, [2–9] raw charge in fC in eight 25 ns slices, [10–16] depth
    1–7 one-hot, [17–46] |ieta| 1–30 one-hot. charge = pedestal + noise + photostatistics +
    (energy × response(|ieta|, depth) / gain) × pulse shape, for the collision in slice 3 and for
    soft pile-up from the collisions around it. Half of the energies are soft (exponential,
    0.5 GeV), half log-uniform in 0.3–500 GeV: a physical spectrum would hardly train the tail.
    """
    ieta = rng.integers(1, 31, items)
    depth = rng.integers(1, 8, items)
    iphi = rng.integers(1, 73, items)
    gain = 0.2 * (1 + 0.1 * np.clip(rng.standard_normal(items), -3, 3))
    soft = rng.exponential(0.5, items)
    hard = np.exp(rng.uniform(np.log(0.3), np.log(500.0), items))
    energy = np.maximum(np.where(rng.random(items) < 0.5, soft, hard), ENERGY_MIN_GEV)
    fc_per_gev = response(ieta, depth) / gain

    charge = np.zeros((items, 8))
    slew_ns = 4.0 / (1 + energy)  # small pulses cross the threshold late
    add_pulse(charge, energy * fc_per_gev, TRIGGER_SLICE, slew_ns + rng.normal(2.0, 0.7, items))
    for slot in (s for s in range(8) if s != TRIGGER_SLICE):
        pileup = rng.exponential(0.3 * ieta / 15, items) * (rng.random(items) < 0.3)
        add_pulse(charge, pileup * fc_per_gev, slot, rng.normal(2.0, 0.7, items))
    charge += rng.standard_normal(charge.shape) * np.sqrt(
        NOISE_FC**2 + FC_PER_PHOTOELECTRON * charge)
    charge += PEDESTAL_FC

    out = np.zeros((items, 47), np.float32)
    out[:, 0], out[:, 1], out[:, 2:10] = iphi, gain, charge
    rows = np.arange(items)
    out[rows, 10 + depth - 1] = 1
    out[rows, 17 + ieta - 1] = 1
    return out, energy


def response(ieta, depth):
    """Relative light yield: fibres darken with depth and towards the beam line; 1 at (1, 1)."""
    return (1 - 0.008 * (ieta - 1)) * (1 - 0.03 * (depth - 1))


def add_pulse(charge, amplitude_fc, slot, delay_ns):
    """Adds to charge [items, 8] a pulse that begins delay_ns after slice slot does.

    Its shape is t exp(-t / tau), integrated over each slice.
    """
    start = slot * SLICE_NS + delay_ns
    edges = np.maximum(np.arange(9) * SLICE_NS - start[:, None], 0) / PULSE_TAU_NS
    collected = 1 - np.exp(-edges) * (1 + edges)
    charge += amplitude_fc[:, None] * np.diff(collected, axis=1)


def calorimeter(rng, items):
    """Electron images: float32 [items, 56, 11, 4] in GeV and the true energy [items].

    Eta × phi × (presampler, strips, middle, back). A shower shares its energy between the layers
    and falls off from a random impact point, with a core and a tail of each layer's width; cells
    fluctuate, and every cell has noise (so some are negative).
    """
    energy = np.exp(rng.uniform(np.log(10.0), np.log(200.0), items))
    shares = rng.gamma(np.array([1.2, 5.0, 20.0, 0.8]), 1.0, (items, 4))
    shares /= shares.sum(1, keepdims=True)
    eta = 27.5 + rng.uniform(-2, 2, items)
    phi = 5.0 + rng.uniform(-0.5, 0.5, items)
    core = np.array([1.5, 1.2, 1.6, 2.5])  # in cells of eta; phi cells are 2.5 × larger
    image = np.zeros((items, 56, 11, 4), np.float32)
    d_eta = np.arange(56)[None, :, None, None] - eta[:, None, None, None]
    d_phi = 2.5 * (np.arange(11)[None, None, :, None] - phi[:, None, None, None])
    distance = np.sqrt(d_eta**2 + d_phi**2).astype(np.float32)
    profile = np.exp(-distance / core.astype(np.float32))
    profile += np.float32(0.02) * np.exp(-distance / (4 * core).astype(np.float32))
    profile /= profile.sum((1, 2), keepdims=True)
    image += profile * (energy[:, None] * shares)[:, None, None, :].astype(np.float32)
    image *= 1 + np.float32(0.1) * rng.standard_normal(image.shape, np.float32)
    noise = np.array([0.03, 0.01, 0.03, 0.02], np.float32)
    image += noise * rng.standard_normal(image.shape, np.float32)
    return image, energy


def jets(rng, items):
    """Jet images: float32 [items, 224, 224, 3], pT in GeV, three equal channels; truth 1 = top.

    The image covers 2 × 2 in eta × phi around the jet. A top decays to three prongs, a QCD jet is
    one hard prong and perhaps a soft one; each prong is a spray of particles, with soft
    wide-angle activity on top. Half of the jets are tops.
    """
    pixels = 224
    top = (rng.random(items) < 0.5).astype(np.int64)
    image = np.zeros((items, pixels * pixels), np.float32)
    for i in range(items):
        jet_pt = rng.uniform(500, 800)
        if top[i]:
            shares, spread = rng.dirichlet([3, 3, 3]), 0.30
        else:
            soft = rng.beta(1, 8)
            shares, spread = np.array([1 - soft, soft]), 0.20
        axes = rng.normal(0, spread, (len(shares), 2))
        axes -= shares @ axes  # the jet's axis is in the middle of the image
        count = rng.poisson(25, len(shares)) + 1
        prong = np.repeat(np.arange(len(shares)), count)
        fraction = rng.gamma(0.4, 1.0, len(prong))
        fraction /= np.bincount(prong, fraction)[prong]
        pt = jet_pt * shares[prong] * fraction
        width = 0.03 + 0.4 / np.sqrt(pt + 25)
        place = axes[prong] + width[:, None] * rng.standard_normal((len(prong), 2))
        soft_pt, soft_place = rng.exponential(1.0, 30), rng.uniform(-1, 1, (30, 2))
        place = np.concatenate([place, soft_place])
        cell = np.floor((place + 1) * pixels / 2).astype(np.int64)
        inside = ((cell >= 0) & (cell < pixels)).all(1)
        index = cell[inside, 0] * pixels + cell[inside, 1]
        np.add.at(image[i], index, np.concatenate([pt, soft_pt])[inside].astype(np.float32))
    image = image.reshape(items, pixels, pixels, 1)
    return np.repeat(image, 3, 3), top


def patches(rng, items):
    """Wire patches: float32 [items, 48, 48, 1] in ADC counts; truth 0 track, 1 em, 2 none, 3 michel.

    Wire × time around a hit in the middle. A track is a straight line of even charge; an em shower
    a cone of blobs; none is a stray hit; a Michel electron a track that ends in the middle,
    brighter towards its end, and a short line on from there. All over electronic noise.
    """
    kind = rng.choice(4, items, p=[0.45, 0.35, 0.1, 0.1])
    grid = np.arange(48, dtype=np.float32) - np.float32(23.5)
    angle = rng.uniform(0, 2 * np.pi, items)
    charge = rng.gamma(8, 2.5, items)
    adc = np.zeros((items, 48, 48), np.float32)

    def rows(*kinds):
        return np.flatnonzero(np.isin(kind, kinds))

    def line(at, angle, low, high, charge, rise=0.0):
        """A line through the middle along angle, from low to high pixels; [len(at)] each."""
        c, s = (np.asarray(f(angle), np.float32)[:, None, None] for f in (np.cos, np.sin))
        along = grid[:, None] * c + grid[None, :] * s
        across = grid[None, :] * c - grid[:, None] * s
        low, high, charge = (np.asarray(v, np.float32)[:, None, None] for v in (low, high, charge))
        inside = (along > low) & (along < high)
        bragg = 1 + np.float32(rise) * np.exp(-np.abs(along) / 4)
        adc[at] += np.where(inside, charge * bragg * np.exp(-across**2 / 2), 0)

    at = rows(0)
    line(at, angle[at], np.full(len(at), -40.0), rng.uniform(0, 40, len(at)), charge[at])
    at = rows(3)
    line(at, angle[at], np.full(len(at), -40.0), np.zeros(len(at)), charge[at], rise=1.5)
    kink = angle[at] + rng.uniform(0.5, 2 * np.pi - 0.5, len(at))
    line(at, kink, np.zeros(len(at)), rng.uniform(4, 14, len(at)), charge[at])
    at = rows(1)
    blobs(adc, at, angle[at], charge[at], 24, rng)
    at = rows(2)
    blobs(adc, at, angle[at], charge[at], 1, rng)
    adc += rng.standard_normal(adc.shape, np.float32)
    return adc[..., None], kind


def blobs(adc, at, angle, charge, count, rng):
    """Adds count 3 × 3 blobs to each image of adc [items, 48, 48] in `at`, in a cone along angle."""
    along = rng.gamma(2, 5, (len(at), count)) * (count > 1)
    across = rng.standard_normal((len(at), count)) * (0.3 + 0.25 * along)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    wire = np.rint(23.5 + along * c - across * s).astype(np.int64)
    time = np.rint(23.5 + along * s + across * c).astype(np.int64)
    size = charge[:, None] * rng.exponential(1.0, wire.shape)
    image = np.broadcast_to(at[:, None], wire.shape)
    for d_wire in (-1, 0, 1):
        for d_time in (-1, 0, 1):
            w, t = wire + d_wire, time + d_time
            inside = (w >= 0) & (w < 48) & (t >= 0) & (t < 48)
            weight = 0.5 ** (abs(d_wire) + abs(d_time))
            np.add.at(adc, (image[inside], w[inside], t[inside]),
                      (weight * size[inside]).astype(np.float32))


GENERATORS = {"facile": channels, "deepcalo": calorimeter, "resnet50": jets,
              "emtrkmichel": patches}


def stream(model, items, seed):
    """Yields float32 [<= CHUNK, *dims] until items rows of model's inputs are out."""
    for number, start in enumerate(range(0, items, CHUNK[model])):
        rng = np.random.default_rng([seed, number])
        yield GENERATORS[model](rng, CHUNK[model])[0][:items - start]
