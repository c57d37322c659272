use std::process::ExitCode;

fn main() -> ExitCode {
    consign_agent::cli::main()
}
