//! Writes a stand-in for each function of libcuda (`src/driver/lazy.rs`), and an empty library of its
//! name, which the linker is asked for where cudarc is linked, and takes nothing from.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{env, fs, io};

const FUNCTIONS: &str = "src/driver/lazy/functions.txt";

/// What a stand-in does: jumps to the function, or has it looked up first. Every register that may hold
/// an argument is kept meanwhile.
const ASSEMBLY: &str = r#"
.pushsection .text.sleuth_cuda_lazy,"ax",@progbits
.macro sleuth_cuda_function name, index
.globl \name
.type \name, @function
\name:
    mov r11, qword ptr [rip + SLEUTH_CUDA_ADDRESSES + 8 * \index]
    test r11, r11
    je 1f
    jmp r11
1:  mov r11d, \index
    jmp sleuth_cuda_bind
.size \name, . - \name
.endm
sleuth_cuda_bind:
    push rbp
    mov rbp, rsp
    push rdi
    push rsi
    push rdx
    push rcx
    push r8
    push r9
    push rax
    sub rsp, 136
    and rsp, -16
    movups [rsp], xmm0
    movups [rsp + 16], xmm1
    movups [rsp + 32], xmm2
    movups [rsp + 48], xmm3
    movups [rsp + 64], xmm4
    movups [rsp + 80], xmm5
    movups [rsp + 96], xmm6
    movups [rsp + 112], xmm7
    mov edi, r11d
    call sleuth_cuda_address
    mov r11, rax
    movups xmm0, [rsp]
    movups xmm1, [rsp + 16]
    movups xmm2, [rsp + 32]
    movups xmm3, [rsp + 48]
    movups xmm4, [rsp + 64]
    movups xmm5, [rsp + 80]
    movups xmm6, [rsp + 96]
    movups xmm7, [rsp + 112]
    lea rsp, [rbp - 56]
    pop rax
    pop r9
    pop r8
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    pop rbp
    jmp r11
"#;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed={FUNCTIONS}");
    println!("cargo:rerun-if-changed=build.rs");
    let text = fs::read_to_string(FUNCTIONS)?;
    let names: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    let write = write_all(&mut out, &names);
    write.map_err(io::Error::other)?;
    let folder = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    let folder = Path::new(&folder);
    fs::write(folder.join("functions.rs"), out)?;
    if env::var_os("CARGO_FEATURE_LINKED").is_some() && defines_the_functions() {
        empty_library(folder)?;
    }
    Ok(())
}

/// Where `lazy.rs` is compiled.
fn defines_the_functions() -> bool {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ARCH", "x86_64")
}

fn empty_library(folder: &Path) -> io::Result<()> {
    let source = folder.join("empty.c");
    fs::write(&source, "int sleuth_cuda_no_driver;\n")?;
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(compiler)
        .args(["-shared", "-fPIC", "-Wl,-soname,libsleuth_no_driver.so", "-o"])
        .arg(folder.join("libcuda.so"))
        .arg(&source)
        .status()?;
    if !built.success() {
        return Err(io::Error::other("the C compiler made no empty libcuda.so"));
    }
    println!("cargo:rustc-link-search=native={}", folder.display());
    Ok(())
}

fn write_all(out: &mut String, names: &[&str]) -> std::fmt::Result {
    writeln!(out, "const COUNT: usize = {};", names.len())?;
    writeln!(out, "static NAMES: [&CStr; COUNT] = [")?;
    for name in names {
        writeln!(out, "    c\"{name}\",")?;
    }
    writeln!(out, "];")?;
    let mut assembly = ASSEMBLY.to_owned();
    for (index, name) in names.iter().enumerate() {
        writeln!(assembly, "sleuth_cuda_function {name}, {index}")?;
    }
    assembly.push_str(".purgem sleuth_cuda_function\n.popsection\n");
    writeln!(out, "std::arch::global_asm!({assembly:?});")
}
