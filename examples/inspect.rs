//! Shows files of a database as annotated text: `cargo run --example inspect -- FILE ...`

use std::process::ExitCode;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        eprintln!("usage: inspect FILE ... (a .journal, .manifest or .table file, or HINT)");
        return ExitCode::from(2);
    }
    for file in files {
        match esker::inspect::dump(&esker::fs::os::OsFs, &file) {
            Ok(text) => println!("== {file}\n{text}"),
            Err(e) => {
                eprintln!("{e}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
