//! `consign`: the coordinator's server and the operator's command line in one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    consign_coordinator::cli::main()
}
