//! `postkeep-archiver`: see [`postkeep_archiver::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    postkeep_archiver::cli::main()
}
