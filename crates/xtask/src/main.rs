//! The project's own tasks.

mod codegen;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("codegen") => {
            let check = args.iter().any(|arg| arg == "--check");
            let facts = args.iter().skip(1).find(|arg| !arg.starts_with("--"));
            codegen::run(std::path::Path::new(facts.map_or("facts", String::as_str)), check)
        }
        _ => anyhow::bail!("usage: cargo xtask codegen [--check] FACTS"),
    }
}
