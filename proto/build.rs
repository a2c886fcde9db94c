//! Compiles every `.proto` below `linnet/` with a pure-Rust compiler; no `protoc` is needed.

use std::path::{Path, PathBuf};

fn protos(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            protos(&path, found)?;
        } else if path.extension().is_some_and(|ext| ext == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=linnet");
    let mut files = Vec::new();
    protos(Path::new("linnet"), &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .type_attribute(".linnet.client", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".linnet.client", "#[serde(default, rename_all = \"snake_case\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
