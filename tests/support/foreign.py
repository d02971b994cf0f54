"""Compile kernels to objects for processors that need not be this one, without running any.

    python tests/support/foreign.py KERNELS FOLDER TRIPLE PROCESSOR...

Numba takes the first processor for its own, and all of its pipeline runs but for the last step,
which would load what it has made; LLVM makes objects of it for every one, and assembly of the
packed product. KERNELS is a file by `every_kernel`.
"""

import importlib
import pickle
import sys
from pathlib import Path

from llvmlite import binding
from numba.core import codegen, cpu, dispatcher

READ = ("bnnlib.kernels.cpu.xnor_product", "matmul")  # the kernel whose instructions a test reads


def pretend(triple: str, processor: str) -> None:
    """Let Numba compile for this processor from now on, load nothing and keep nothing."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    codegen.ll.get_process_triple = lambda: triple

    class Foreign(codegen.AOTCPUCodegen):
        def set_env(self, *_) -> None:
            pass

        def magic_tuple(self) -> tuple[str, str, str]:
            return triple, processor, ""

    def executable(_, library, *rest):
        """What stands for a function that nobody can call: each needs a builtin of its own."""
        library._ensure_finalized()
        return [].append

    def init(context) -> None:
        context.is32bit = False
        context._internal_codegen = Foreign("foreign", processor)

    cpu.CPUContext.init = init
    cpu.CPUContext.get_executable = executable
    dispatcher.Dispatcher.enable_caching = lambda self: None


def write_objects(kernels: list[tuple], folder: Path, triple: str, processors: list[str]) -> None:
    """An object of each kernel for each processor, of what Numba has made of it; assembly of READ.

    kernels: (module, name, types of arguments), compiled in this process.
    """
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple(triple)
    machines = {name: target.create_target_machine(cpu=name, opt=3) for name in processors}
    for number, (module, name, arguments) in enumerate(kernels):
        kernel = getattr(importlib.import_module(module), name)
        made = kernel.overloads[arguments].library._final_module
        for processor, machine in machines.items():
            file = folder / f"{module}.{name}.{number}.{processor}"
            file.with_name(f"{file.name}.o").write_bytes(machine.emit_object(made))
            if (module, name) == READ:
                file.with_name(f"{file.name}.s").write_text(machine.emit_assembly(made))


def main(kernels: str, folder: str, triple: str, *processors: str) -> None:
    pretend(triple, processors[0])
    called = pickle.loads(Path(kernels).read_bytes())
    for module, name, arguments in called:
        getattr(importlib.import_module(module), name).compile(arguments)
    write_objects(called, Path(folder), triple, processors)


if __name__ == "__main__":
    main(*sys.argv[1:])
