"""How Numba compiles helpers: to LLVM code that callers take in, and no further.

Numba optimises every jitted function and turns it into machine code before its caller is compiled, which links the
optimised code in and optimises all of it again. Helpers are only ever called from kernels, so here both are left to
the kernel that they end up in: a first convolution takes 2 to 4 seconds instead of 4 to 6, and kernels run as fast.
"""

from __future__ import annotations

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import NativeLowering, NopythonRewrites
from numba.core.untyped_passes import InlineClosureLikes


class _LinkedLibrary(JITCodeLibrary):
    """LLVM code as it was lowered, to be linked into callers; the execution engine never sees it."""

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self.codegen._data_layout

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _HelperLowering(NativeLowering):
    """Lowers a helper and files it for callers under a builtin function, as Numba asks, which nothing calls."""

    _name = "helper_lowering"

    def run_pass(self, state):
        state.library = _LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        super().run_pass(state)
        lowered = state["cr"]
        entry = lowered.fndesc.__sizeof__
        state.targetctx.insert_user_function(entry, lowered.fndesc, [state.library])
        state["cr"] = lowered._replace(cfunc=entry)
        return True


#: Passes over array expressions and closures, of which helpers have none: a twentieth of the time.
_LEFT_OUT = (NopythonRewrites, InlineClosureLikes)


class HelperCompiler(CompilerBase):
    """Numba's pipeline for compiled functions, but for its end."""

    def define_pipelines(self):
        flags = self.state.flags
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        standard = DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager = PassManager("helper")
        manager.passes = [
            (_HelperLowering if step is NativeLowering else step, about)
            for step, about in standard.passes
            if step not in _LEFT_OUT
        ]
        manager.finalize()
        return [manager]
