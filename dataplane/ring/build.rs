//! Compiles the package's BPF programs, `bpf/*.c`, with clang, against the libbpf headers that libbpf-sys builds.
//! `bench/generator` has this build script too.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let headers = env::var("DEP_BPF_INCLUDE").expect("libbpf-sys says where its headers are");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    println!("cargo:rerun-if-env-changed=CLANG");

    println!("cargo:rerun-if-changed=bpf");
    for file in fs::read_dir("bpf").expect("the package has BPF programs") {
        let source = file.expect("an entry of the folder").path();
        println!("cargo:rerun-if-changed={}", source.display());
        let object = out.join(source.file_name().expect("a file")).with_extension("o");
        let status = Command::new(&clang)
            // Version 3 of the instructions has 32-bit arithmetic and all atomic operations. Linux 5.12 knows it.
            .args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-I", &headers, "-c"])
            .arg(&source)
            .args(multiarch_headers())
            .arg("-o")
            .arg(&object)
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => panic!("{clang} could not compile {}: {status}", source.display()),
            Err(error) => panic!("cannot run {clang}: {error}; install it (Debian: apt-get install clang)"),
        }
    }
}

/// `linux/bpf.h` includes `asm/types.h`. Debian has this file in a folder named after the host's triple, which clang
/// does not search with `-target bpf`.
fn multiarch_headers() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/usr/include") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.join("asm/types.h").is_file())
        .flat_map(|path| ["-idirafter".to_owned(), path.display().to_string()])
        .collect()
}
