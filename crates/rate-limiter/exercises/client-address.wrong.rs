// caught by: client::
    /// The address of the client, as far as it can be believed.
    pub fn address(&self, request: &Parts) -> IpAddr {
        // Who serves the router without telling the addresses gets one quota for all.
        let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
        let mut client = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let hops = self.hops(&request.headers).into_iter();
        // Whoever we trust tells whom it saw; the first that we do not trust is the client. What cannot be
        // read says nothing, so the one who handed it on has to stand for it.
        if self.trusts(client) {
            // The mistake: the first address of the list is the client, says the documentation. That is the one which the
            // client may have written itself.
            if let Some(first) = hops.last().and_then(|hop| parse_hop(&hop)) {
                client = first;
            }
        }
        client
    }
