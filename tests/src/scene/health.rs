//! What a coordinator asks how a wave is: an HTTP server in the test's own process, which says what the test wants.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Says that the wave is not good yet, until it is told to.
#[derive(Debug)]
pub struct Health {
    address: SocketAddr,
    good: Arc<AtomicBool>,
}

impl Health {
    pub fn listen(ip: std::net::Ipv4Addr) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let good = Arc::new(AtomicBool::new(false));
        let told = good.clone();
        std::thread::spawn(move || {
            for mut asked in listener.incoming().map_while(Result::ok) {
                drop(asked.set_read_timeout(Some(Duration::from_secs(5))));
                drop(asked.read(&mut [0; 4096]));
                let status = if told.load(Ordering::SeqCst) { "200 OK" } else { "503 Service Unavailable" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                // Whoever asked may be gone, killed by the test.
                drop(asked.write_all(answer.as_bytes()));
            }
        });
        Self { address, good }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn is_good_now(&self) {
        self.good.store(true, Ordering::SeqCst);
    }
}
