//! Compiles the .proto files without protoc, and keeps the descriptor for the test that walks every method.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=consign");
    let descriptors = protox::compile(["consign/v1/agent.proto", "consign/v1/operator.proto"], ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("consign.bin"), descriptors.encode_to_vec())?;
    // Bulk bytes arrive as Bytes: passing a chunk on is then a reference, not a copy.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
