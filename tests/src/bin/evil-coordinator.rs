//! Plays a hostile coordinator against a real agent: `list`, `run NAME...`, `group`, `all`, `table`.

use std::process::ExitCode;

use consign_tests::evil::coordinator::{Attack, Runner, attacks};

const USAGE: &str = "evil-coordinator list | run NAME... | all | table";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["list"] => {
            for attack in attacks() {
                println!("{:42} {}", attack.name, attack.sends);
            }
            ExitCode::SUCCESS
        }
        ["table"] => {
            print!("{}", consign_tests::evil::table());
            ExitCode::SUCCESS
        }
        ["all"] => play(&attacks()),
        ["run", names @ ..] if !names.is_empty() => {
            let mut chosen = Vec::new();
            for name in names {
                let Some(attack) = attacks().into_iter().find(|attack| attack.name == *name) else {
                    eprintln!("there is no attack {name}; `evil-coordinator list` shows those there are");
                    return ExitCode::from(2);
                };
                chosen.push(attack);
            }
            play(&chosen)
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn play(attacks: &[Attack]) -> ExitCode {
    let failed = Runner::default().play(attacks);
    println!("{} attacks, {} got through or broke something", attacks.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
