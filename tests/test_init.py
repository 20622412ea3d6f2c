"""What `import hf_prunable` brings."""

import subprocess
import sys

import hf_prunable
from tests.helpers.processes import with_root


def test_every_public_name_is_there():
    assert all(getattr(hf_prunable, name) is not None for name in hf_prunable.__all__)
    assert set(hf_prunable.__all__) <= set(dir(hf_prunable))


def test_the_import_registers_the_models_and_leaves_out_what_they_do_not_need():
    code = (
        "import sys, hf_prunable, transformers; print(transformers.AutoConfig.for_model('prunable_wavlm').model_type); "
        "print(*({'datasets', 'sklearn', 'matplotlib', 'onnxruntime', 'evaluate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=with_root(), capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["prunable_wavlm", ""], done.stderr[-1000:]
