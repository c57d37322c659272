//! From nothing to a production that asks for somebody's approval: the guide's commands, as they are printed there.

use std::{fs, path::Path, time::Instant};

use consign_tests::{
    scene::{LONG, serves},
    wait::until,
};

use super::team::Team;

/// The blocks in the guide's section, by language.
fn blocks(language: &str) -> Vec<String> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide.md");
    let guide = fs::read_to_string(guide).unwrap();
    let section = guide.split("\n## From nothing to a gated production\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let opening = format!("```{language}\n");
    let blocks = section.split(&opening).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn eleven_commands_of_the_guide_make_a_gated_production() {
    let team = Team::boot("deploy-1", &["stage-1", "web-1"]);
    team.ssh_key("pat", "you");
    let desk = team.desk("you");
    fs::write(desk.join("environments.toml"), blocks("toml").concat()).unwrap();
    team.source(&desk.join("build"), "0.13.3", "", &[]);

    let address = team.coordinator().address().to_string();
    let commands = blocks("sh").concat().replace("\\\n", " ");
    let (mut typed, mut token) = (0, String::new());
    let begun = Instant::now();
    for line in commands.lines() {
        let (line, who) = line.split_once(" # ").unwrap_or_else(|| panic!("nobody types {line}"));
        let mut line = line.trim().replace("deploy.example.org", &address).replace("shop", "notes");
        line = line.replace("TOKEN", token.trim());
        // There is no terminal here.
        if line.contains("--enroll") || line.starts_with("consign approve") {
            line.push_str(" --yes");
        }
        typed += 1;
        let who = who.trim();
        if line.starts_with("consign approve") {
            // Until then production takes nothing, whoever starts it.
            let start = ["rollout", "start", "notes@1.0.0", "--env", "production"];
            let refused = team.operator("you").run(&start);
            assert_eq!(refused.code, 6, "{refused:?}");
            assert!(refused.stderr.contains("production-approvers"), "{refused:?}");
            assert_eq!(serves(team.host("stage-1")), "0.13.3");
            assert_ne!(team.host("web-1").try_exec("ls /srv/notes/current").code, 0);
        }
        let printed = match who {
            "you" | "pat" => team.type_at(who, &line),
            host => {
                let printed = team.host(host).exec(&format!("cd /root && {line}"));
                println!("{host}# {line}\n{printed}");
                printed
            }
        };
        if line.starts_with("consign init") {
            let bundle = team.operator("you").home().join("coordinator.bundle");
            team.coordinator().copy(&bundle, "/root/coordinator.bundle");
        }
        if line.contains(" token ") || line.contains("operator add") {
            token = printed;
        }
    }
    // Nobody starts it: it was waiting for this.
    until("production runs it", LONG, || {
        let output = team.host("web-1").try_exec("curl -s -f http://127.0.0.1:8080/healthz");
        if output.code == 0 && output.stdout == "0.13.3" { Ok(()) } else { Err(output) }
    });
    println!("{typed} commands, {:.1} minutes of machines", begun.elapsed().as_secs_f64() / 60.0);
    assert_eq!(typed, 11, "the guide says how many there are");
}
