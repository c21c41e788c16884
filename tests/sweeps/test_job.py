"""How a job is named, and what it keeps of the process that starts it."""

from dolglab.sweeps.jobs import own_environment
from dolglab.sweeps.overrides import job_folder, short_names


def test_a_folder_says_what_differs_in_letters_that_need_no_quotes():
    assert job_folder(3, {"margin.margin": "0.15", "pooling.p": "2"}) == "3_margin-0.15_p-2"
    assert job_folder(0, {}) == "0"
    assert job_folder(1, {"+data.x": "[a, 'b c']", "model": "''"}) == "1_x-a-b-c_model-empty"
    assert job_folder(2, {"lr": "-1e-3"}) == "2_lr-1e-3"


def test_keys_that_end_alike_are_named_in_full():
    assert short_names(["pooling.p", "fusion.p", "seed"]) == {
        "pooling.p": "pooling.p",
        "fusion.p": "fusion.p",
        "seed": "seed",
    }


def test_a_job_numbers_its_processes_anew():
    outer = {"PATH": "/bin", "LOCAL_RANK": "3", "SLURM_NTASKS": "4", "MASTER_PORT": "1", "WANDB_MODE": "offline"}
    assert own_environment(outer) == {"PATH": "/bin", "WANDB_MODE": "offline", "DOLG_STOP_WITH_PARENT": "1"}
