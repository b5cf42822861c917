"""A Ray cluster of a head without CPUs and some nodes, each with processes and an object store of its own, as on several machines. Run by `test_nodes.py`.

Prints the head's address. On standard input, `lose N` takes a node away without a word, as a power cut would, and `join CPUS` brings a new one; the end of input ends the
cluster.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import psutil

from etude.distributed.cluster import import_ray


def main() -> None:
    import_ray()
    from ray.cluster_utils import Cluster

    store = 80 * 2**20
    # Nodes are asked more often than by default whether they are there, so that one that is gone is missed sooner; one that is busy has as long to answer as ever.
    checks = {"health_check_period_ms": 500}
    head = {"num_cpus": 0, "object_store_memory": store, "include_dashboard": False, "_system_config": checks}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=int(cpus), object_store_memory=store) for cpus in sys.argv[1:]]
    cluster.wait_for_nodes()
    print(f"address {cluster.address}", flush=True)
    for line in sys.stdin:
        what, number = line.split()
        if what == "lose":
            node = nodes[int(number)]
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            # Otherwise its workers go on until they miss it.
            everything = [raylet, *raylet.children(recursive=True)]
            cluster.remove_node(node, allow_graceful=False)
            for process in everything:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        else:
            nodes.append(cluster.add_node(num_cpus=int(number), object_store_memory=store))
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
