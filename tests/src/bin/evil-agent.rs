//! Plays a hostile agent against a real coordinator: `list`, `run NAME...`, `all`. Its table is `evil-coordinator table`.

use std::process::ExitCode;

use consign_tests::evil::agent::{ATTACKS, Attack, play};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let chosen: Vec<Attack> = match arguments.as_slice() {
        ["list"] => {
            for attack in ATTACKS {
                println!("{:36} {}", attack.name, attack.sends);
            }
            return ExitCode::SUCCESS;
        }
        ["all"] => ATTACKS.to_vec(),
        ["run", names @ ..] if !names.is_empty() => {
            ATTACKS.iter().filter(|attack| names.contains(&attack.name)).copied().collect()
        }
        _ => {
            eprintln!("evil-agent list | run NAME... | all");
            return ExitCode::from(2);
        }
    };
    let failed = play(&chosen);
    println!("{} attacks, {} got through or broke something", chosen.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
