//! The `whimbrel` binary.

fn main() -> std::process::ExitCode {
    whimbrel::cli::main(std::env::args_os()).number().into()
}
