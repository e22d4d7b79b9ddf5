//! The `postkeep-gateway` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    postkeep_gateway::cli::main()
}
