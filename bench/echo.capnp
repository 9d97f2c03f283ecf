# SPDX-License-Identifier: Apache-2.0
# The call that Cap'n Proto makes in bench/peers_capnp.cc.
@0xae4472468ccf5789;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("petal_echo");

interface Echo {
	echo @0 (bytes :Data) -> (bytes :Data);
}
