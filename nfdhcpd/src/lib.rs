//! Answers DHCPv4, DHCPv6, router and neighbour solicitations of the guests from NFQUEUE
