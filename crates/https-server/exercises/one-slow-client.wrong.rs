// caught by: slow-handshakes
    /// Shakes hands and answers in a task of its own. In the loop that accepts, one slow client would stop all others.
    fn spawn(&self, stream: TcpStream, peer: SocketAddr) {
        let this = self.clone();
        self.tasks.spawn(async move {
            // The mistake: whoever says nothing may stay for ever.
            let shaken = timeout(Duration::MAX, this.shake_hands(stream)).await;
            let served = match shaken {
                // In a box, so that a connection that never gets here does not take the memory for it.
                Ok(Ok(stream)) => {
                    let connection = Connection::of(stream.get_ref().1, peer);
                    let stop = this.stopping.cancelled();
                    Box::pin(answer(stream, this.router, connection, this.patience, stop)).await
                }
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err("the handshake took too long".into()),
            };
            if let Err(error) = served {
                tracing::debug!(%error, %peer, "connection ended");
            }
        });
    }

    async fn shake_hands(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let _ = stream.set_nodelay(true);
        let mut first = [0];
        stream.peek(&mut first).await?;
        // TLS begins with 22, and HTTP with a letter.
        if first[0].is_ascii_alphabetic() {
            let _ = stream.read(&mut [0; 4_096]).await?;
            stream.write_all(SPEAK_TLS).await?;
            stream.shutdown().await?;
            return Err(io::Error::other("the client spoke plain HTTP"));
        }
        self.tls.accept(stream).await
    }
