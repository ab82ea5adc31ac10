//! How is the WebAssembly engine set up? Compiler and host share this file, so that both agree to the bit.
//!
//! Precompiled code is refused when it was made under another configuration; hence nothing here may depend on
//! the machine, the build profile or the environment.

use wasmtime::Config;

/// Largest stack of a guest in bytes; deeper recursion traps.
const GUEST_STACK_BYTES_MAX: usize = 512 << 10;

/// Returns the configuration under which policies are compiled and run.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(GUEST_STACK_BYTES_MAX)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        .wasm_relaxed_simd(false)
        // traps are told with wasm's own frames; tables for native unwinders would be read whole at each load
        .native_unwind_info(false)
        .generate_address_map(true);
    config
}
