//! Who holds a port that is taken, as far as the operating system tells this user.

use std::fs;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// The process that listens on a port: its id and the name of its program.
pub(crate) fn of_port(port: u16) -> Option<(u32, String)> {
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|table| fs::read_to_string(table).ok()) {
        sockets.extend(table.lines().filter_map(|line| inode(line, port)).map(|inode| format!("socket:[{inode}]")));
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut processes = processes.filter_map(|p| p.file_name().to_string_lossy().parse::<u32>().ok());
    let pid = processes.find(|pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .filter_map(|f| fs::read_link(f.path()).ok())
            .any(|to| sockets.iter().any(|s| to.as_os_str() == s.as_str()))
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().to_owned()))
}

/// The socket's number where a line is of a socket that listens on this port.
fn inode(line: &str, port: u16) -> Option<&str> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?.rsplit_once(':')?.1;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    (state == LISTENING && u16::from_str_radix(local, 16).ok()? == port).then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (pid, _) = of_port(held.local_addr().unwrap().port()).unwrap();
        assert_eq!(pid, std::process::id());
    }
}
