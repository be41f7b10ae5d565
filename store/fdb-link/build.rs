//! Makes `libfdb_c.a`: one jump for each name in `symbols.txt`, through a table
//! that `load` fills, and answers for the time before.
//!
//! The archive bears the name that `foundationdb-sys` links (`-lfdb_c`), and the
//! search path printed here reaches every crate above this one, so that the
//! linker finds it also where no FoundationDB is installed.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

const LIST: &str = "symbols.txt";

/// The FoundationDB error "API version is not set": what a function answers that
/// is called before the library is loaded.
const API_VERSION_UNSET: u32 = 2200;

struct Symbol {
    answer: String,
    name: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={LIST}");
    println!("cargo:rerun-if-env-changed=FDB_CLIENT_LIB_PATH");
    if env::var_os("FDB_CLIENT_LIB_PATH").is_some() {
        println!(
            "cargo:warning=FDB_CLIENT_LIB_PATH makes foundationdb-sys look for the real libfdb_c \
             while linking: unset it, or the artefacts will not start without that library"
        );
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let symbols = parse(&fs::read_to_string(LIST)?)?;

    let source = out.join("fdb_c.s");
    fs::write(&source, assembly(&symbols, &arch)?)?;
    fs::write(out.join("names.rs"), names(&symbols)?)?;

    // Linked by the line in `lib.rs` and by `foundationdb-sys`, and bundled
    // into no rlib: one object, one archive, whatever asks for it first.
    cc::Build::new().file(&source).cargo_metadata(false).try_compile("fdb_c")?;
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static:-bundle=fdb_c");
    Ok(())
}

fn parse(list: &str) -> Result<Vec<Symbol>, String> {
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [answer @ ("code" | "null" | "text"), name] => {
                Ok(Symbol { answer: (*answer).to_owned(), name: (*name).to_owned() })
            }
            _ => Err(format!("{LIST}: not a kind of answer and a name: {line:?}")),
        })
        .collect()
}

/// The names in the order of the table, for the loader.
fn names(symbols: &[Symbol]) -> Result<String, std::fmt::Error> {
    let mut text = format!("const NAMES: [&CStr; {}] = [\n", symbols.len());
    for symbol in symbols {
        writeln!(text, "    c\"{}\",", symbol.name)?;
    }
    text.push_str("];\n");
    Ok(text)
}

fn assembly(symbols: &[Symbol], arch: &str) -> Result<String, Box<dyn Error>> {
    let mut text = String::from(".text\n");
    answers(&mut text, arch)?;
    for (index, symbol) in symbols.iter().enumerate() {
        begin(&mut text, &symbol.name)?;
        let slot = format!("interleaf_fdb_targets+{}", index * 8);
        match arch {
            "x86_64" => writeln!(text, "    endbr64\n    jmp *{slot}(%rip)")?,
            // x16 is the register that a jump between a call and its target
            // may change; `hint #34` is the landing pad `bti c`.
            _ => writeln!(
                text,
                "    hint #34\n    adrp x16, {slot}\n    ldr x16, [x16, :lo12:{slot}]\n    br x16"
            )?,
        }
        writeln!(text, "    .size {0}, .-{0}", symbol.name)?;
    }
    text.push_str(".section .data.rel.local,\"aw\"\n.p2align 3\n");
    text.push_str(".globl interleaf_fdb_targets\n.hidden interleaf_fdb_targets\n");
    text.push_str("interleaf_fdb_targets:\n");
    for symbol in symbols {
        writeln!(text, "    .quad interleaf_fdb_answer_{}", symbol.answer)?;
    }
    text.push_str(".section .note.GNU-stack,\"\",%progbits\n");
    Ok(text)
}

/// What the table points to until `load` has filled it.
fn answers(text: &mut String, arch: &str) -> Result<(), Box<dyn Error>> {
    let (code, null, string) = match arch {
        "x86_64" => (
            format!("    endbr64\n    movl ${API_VERSION_UNSET}, %eax\n    ret\n"),
            "    endbr64\n    xorl %eax, %eax\n    ret\n",
            "    endbr64\n    leaq interleaf_fdb_text(%rip), %rax\n    ret\n",
        ),
        "aarch64" => (
            format!("    hint #34\n    mov w0, #{API_VERSION_UNSET}\n    ret\n"),
            "    hint #34\n    mov x0, xzr\n    ret\n",
            "    hint #34\n    adrp x0, interleaf_fdb_text\n    \
             add x0, x0, :lo12:interleaf_fdb_text\n    ret\n",
        ),
        other => return Err(format!("no jumps for {other}: x86_64 and aarch64 only").into()),
    };
    for (name, body) in [("code", code.as_str()), ("null", null), ("text", string)] {
        begin(text, &format!("interleaf_fdb_answer_{name}"))?;
        text.push_str(body);
    }
    text.push_str(".section .rodata\ninterleaf_fdb_text:\n");
    text.push_str("    .asciz \"the FoundationDB client library is not loaded\"\n.text\n");
    Ok(())
}

/// A function that every object of this link may call and that none outside
/// sees: a process that uses the real library as well keeps its own names.
fn begin(text: &mut String, name: &str) -> std::fmt::Result {
    writeln!(text, ".p2align 4\n.globl {name}\n.hidden {name}\n.type {name}, STT_FUNC\n{name}:")
}
