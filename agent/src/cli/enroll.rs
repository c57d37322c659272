//! `consign-agent enroll`: shows what the token says, asks, enrols.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
};

use super::{Done, Global, Output, arguments::EnrollArguments, report::say, runtime};
use crate::{
    identity::enroll::{self, Enrolled, Existing, Preview, Request},
    session::proxy::Proxies,
};

pub(super) fn run(global: &Global, arguments: EnrollArguments) -> Done {
    let EnrollArguments { token, allow_app, allow_user, allow_unit, label, yes, replace, address } =
        arguments;
    let allows_nothing = allow_app.is_empty();
    let request = Request {
        token,
        apps: allow_app,
        users: allow_user,
        units: allow_unit,
        labels: label.into_iter().collect(),
        address,
        existing: if replace { Existing::Replace } else { Existing::Refuse },
        config: global.config_path(),
        state: global.state_path(),
        apps_directory: global.apps_path(),
    };
    let proxies = Proxies::from_environment(|name| std::env::var(name).ok())?;
    let confirm = |preview: &Preview| {
        if global.output == Output::Text {
            show(preview);
        }
        yes || asked()
    };
    let enrolled = runtime()?.block_on(enroll::enroll(&request, proxies, confirm))?;
    match global.output {
        Output::Json => say(serde_json::to_string(&enrolled)?),
        Output::Text => tell(&enrolled, allows_nothing, global),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(preview: &Preview) {
    say(format!("This server becomes  {} in {}", preview.server, preview.environment));
    say(format!("Coordinator          {}", preview.coordinator.join(", ")));
    say(format!("Its CA               {}", preview.ca));
    say(format!("Trust root           version {}, {}", preview.trust_root_version, preview.trust_root));
}

/// Without a terminal nobody can answer: then `--yes` is needed.
fn asked() -> bool {
    if !io::stdin().is_terminal() {
        eprintln!("There is no terminal to ask on; give --yes.");
        return false;
    }
    print!("These must be what the operator's machine shows (`consign trust show`). Enrol? [y/N] ");
    let mut answer = String::new();
    io::stdout().flush().is_ok()
        && io::stdin().lock().read_line(&mut answer).is_ok()
        && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn tell(enrolled: &Enrolled, allows_nothing: bool, global: &Global) {
    say(format!("Enrolled as {} in {} ({})", enrolled.server, enrolled.environment, enrolled.identity));
    say(format!("Own key              {}", enrolled.key));
    say(format!("Fingerprint          {}", enrolled.fingerprint));
    say(
        "                     compare it with what `consign server accept` shows, before secrets are sealed to it",
    );
    say(format!("Certificate until    {}, renewed by itself", enrolled.certificate_expires));
    if allows_nothing {
        say(format!("No app is allowed here yet: add one under [[allow]] in {}.", enrolled.config.display()));
    }
    // Where all is in its usual place the unit finds it; elsewhere the next command needs the same options.
    let places = [("--state", &global.state), ("--apps", &global.apps), ("--config", &global.config)];
    let given: Vec<String> = places
        .iter()
        .filter_map(|(option, path)| path.as_ref().map(|path| format!(" {option} {}", path.display())))
        .collect();
    if given.is_empty() {
        say("Next: `systemctl start consign-agent`, or `consign-agent run` in the foreground.");
    } else {
        say(format!("Next: consign-agent run{}", given.concat()));
    }
}
