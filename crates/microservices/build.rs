//! Makes Rust of the `.proto`. It needs no `protoc`: `protox` is a compiler of such files in Rust.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/pricing.proto");
    let files = protox::compile(["src/pricing.proto"], ["src"])?;
    Ok(tonic_prost_build::compile_fds(files)?)
}
