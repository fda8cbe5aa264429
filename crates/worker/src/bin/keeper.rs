//! The keeper by itself: what `bourse keeper` runs. The socket to the daemon is its standard input.

fn main() -> std::process::ExitCode {
    bourse_worker::keeper::main()
}
