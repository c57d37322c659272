//! Who may talk: certificates, pins, rustls configurations.
