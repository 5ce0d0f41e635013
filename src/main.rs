//! Parses arguments, runs the command, maps the outcome to an exit code: 0 done, 1 failed, 2 wrong
//! usage, 3 configuration invalid.

use std::process::ExitCode;

fn main() -> ExitCode {
    flowgate::cli::main()
}
