#!/bin/sh
# What snf-ifup does for one NIC, as lean as a shell can: no checks, no record, no undo, the
# tables and chains of the filters already there. Variables: as Ganeti sets them, and BINDINGS,
# TABLE, UPLINK, EUI64, LINK_LOCAL, ROUTED_MAC, GUARDED (a set's name) of the benchmark.
set -eu
t=$INTERFACE
if [ "$MODE" = bridged ]; then
    nft -f - <<EOF
add element bridge snf to-protected { "$t" }
add element bridge snf mac { "$t" . $MAC }
add element bridge snf ipv4 { "$t" . $IP }
add element bridge snf ipv6 { "$t" . $EUI64, "$t" . $LINK_LOCAL }
add element bridge snf static6 { $EUI64, $LINK_LOCAL, $NETWORK_GATEWAY6 }
add element bridge snf prefix6 { "$t" . ${NETWORK_SUBNET6%/*}, "$t" . fe80:: }
add element bridge snf $GUARDED { "$t" }
EOF
    echo 1 >"/proc/sys/net/ipv6/conf/$t/disable_ipv6"
    ip link set "$t" mtu 1500 address "fe:${MAC#*:}" master "$LINK"
    bridge link set dev "$t" isolated off flood off
    bridge fdb replace "$MAC" dev "$t" master static
    ip link set "$t" up
    indev=$LINK
else
    nft -f - <<EOF
add element inet snf to-protected { "$t" }
add element inet snf mac { "$t" . $MAC }
add element arp snf mac { "$t" . $MAC }
add element inet snf ipv4 { "$t" . $IP }
add element arp snf ipv4 { "$t" . $IP }
add element inet snf ipv6 { "$t" . $EUI64, "$t" . $LINK_LOCAL }
add element inet snf static6 { $EUI64, $LINK_LOCAL, $NETWORK_GATEWAY6 }
add element inet snf prefix6 { "$t" . ${NETWORK_SUBNET6%/*}, "$t" . fe80:: }
add element arp snf $GUARDED { "$t" }
add element inet snf $GUARDED { "$t" }
EOF
    for setting in forwarding=1 proxy_arp=1 send_redirects=0 accept_redirects=0 rp_filter=0; do
        echo "${setting#*=}" >"/proc/sys/net/ipv4/conf/$t/${setting%=*}"
    done
    for setting in accept_ra=0 accept_dad=0 accept_redirects=0 forwarding=1 proxy_ndp=1; do
        echo "${setting#*=}" >"/proc/sys/net/ipv6/conf/$t/${setting%=*}"
    done
    echo 0 >"/proc/sys/net/ipv4/neigh/$t/proxy_delay"
    echo 0 >"/proc/sys/net/ipv6/neigh/$t/proxy_delay"
    ip link set "$t" mtu 1500 address "$ROUTED_MAC" up
    ip -batch - <<EOF
neigh replace $IP lladdr $MAC dev $t nud permanent
route replace $IP dev $t table $TABLE
rule add iif $t lookup $TABLE priority 30000
neigh replace proxy $IP dev $UPLINK
EOF
    ip -6 -batch - <<EOF
neigh replace $EUI64 lladdr $MAC dev $t nud permanent
route replace $EUI64 dev $t table $TABLE
rule add iif $t lookup $TABLE priority 30000
neigh replace proxy $EUI64 dev $UPLINK
neigh replace proxy $NETWORK_GATEWAY6 dev $t
EOF
    indev=$t
fi
cat >"$BINDINGS/.$t" <<EOF
INDEV=$indev
IP=$IP
MAC=$MAC
HOSTNAME=$INSTANCE
GATEWAY=$NETWORK_GATEWAY
SUBNET=$NETWORK_SUBNET
GATEWAY6=$NETWORK_GATEWAY6
SUBNET6=$NETWORK_SUBNET6
EUI64=$EUI64
MTU=1500
EOF
mv "$BINDINGS/.$t" "$BINDINGS/$t"
