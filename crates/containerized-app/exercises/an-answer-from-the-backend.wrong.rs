// caught by: backend::
    /// Whether it answers to `PING` in time. An open port alone says little: the kernel opens it for a server that hangs.
    pub async fn answers(&self) -> bool {
        // The mistake: a server that hangs has an open port, too.
        matches!(timeout(PATIENCE, TcpStream::connect(&self.0)).await, Ok(Ok(_)))
    }
