import math

import numpy as np
import pytest

from ldr2hdr_cli.evaluation.lights import irradiance, light_rmse_stops, sphere


def test_a_uniform_sky_gives_pi_times_its_radiance_in_every_direction():
    sky = np.full((128, 256, 3), 2.5, np.float32)
    np.testing.assert_allclose(irradiance(sky, sphere()), 2.5 * math.pi, rtol=2e-3)


def test_half_a_sky_gives_what_the_view_factor_of_a_hemisphere_says():
    dome = np.zeros((256, 512, 3), np.float32)
    dome[:128] = 1.0
    tilt = np.radians([0, 45, 90, 135, 180])
    normals = np.stack([np.zeros(5), np.cos(tilt), np.sin(tilt)], 1)
    # A plane tilted by t from the zenith sees (1 + cos t)/2 of a uniform dome.
    np.testing.assert_allclose(irradiance(dome, normals), math.pi * (1 + np.cos(tilt)) / 2, atol=0.01)


@pytest.mark.parametrize(("row", "column"), [(40, 10), (3, 100), (64, 64)])
def test_a_lamp_gives_the_cosine_of_its_angle(row, column):
    lamp = np.zeros((128, 256, 3), np.float32)
    lamp[row, column] = 1000.0
    latitude, longitude = math.pi * (0.5 - (row + 0.5) / 128), 2 * math.pi * ((column + 0.5) / 256 - 0.5)
    towards = np.array(
        [math.cos(latitude) * math.sin(longitude), math.sin(latitude), math.cos(latitude) * math.cos(longitude)]
    )
    steradians = math.cos(latitude) * (math.pi / 128) * (2 * math.pi / 256)
    expected = 1000 * steradians * np.maximum(sphere() @ towards, 0)
    np.testing.assert_allclose(irradiance(lamp, sphere()), expected, rtol=1e-3, atol=1e-9)


def test_a_panorama_at_half_the_exposure_is_one_stop_off():
    rng = np.random.default_rng(0)
    truth = rng.random((32, 64, 3), np.float32) + 0.1
    assert light_rmse_stops(truth / 2, truth) == pytest.approx(1.0, abs=1e-6)
    assert light_rmse_stops(truth, truth) == 0


def test_the_sphere_is_even():
    directions = sphere()
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_allclose(directions.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(directions.T @ directions / len(directions), np.eye(3) / 3, atol=0.02)
