"""A Flink session cluster on 127.0.0.1: a job manager and three task managers, each a process of its own."""

from collections.abc import Mapping
from typing import ClassVar

from cluster import QUICK, Cluster, free_ports, wait

MANAGERS = 3  # of which jobs take two: outside YARN and Kubernetes nobody starts another in the place of a dead one
SLOTS = 2
# Flink 1.16 on Java 17.
EXPORTS = ["--add-exports=java.base/sun.net.util=ALL-UNNAMED"]
PACKAGES = ("java.lang", "java.net", "java.nio", "java.time", "java.util", "java.util.concurrent", "sun.nio.ch")
OPENS = [*EXPORTS, *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in PACKAGES)]
# What Flink's own scripts work out and give to a task manager, which does not start without.
MEMORY = {
    "framework.heap.size": "128m", "framework.off-heap.size": "128m", "task.heap.size": "512m",
    "task.off-heap.size": "64m", "network.min": "128m", "network.max": "128m", "managed.size": "256m",
    "jvm-metaspace.size": "192m", "jvm-overhead.min": "128m", "jvm-overhead.max": "128m",
}  # fmt: skip


class FlinkCluster(Cluster):
    """Flink comes with the runner's own jars."""

    executor: ClassVar[str] = "TaskManagerRunner"

    def start(self) -> None:
        rpc, web = free_ports(2)
        self.web = f"http://127.0.0.1:{web}/overview"
        (self.folder / "flink-conf.yaml").write_text(written(settings(rpc, web)))
        self._daemon("job_manager", "entrypoint.StandaloneSessionClusterEntrypoint", "-Xmx512m")
        for number in range(MANAGERS):
            limits = ["-Xmx640m", "-XX:MaxDirectMemorySize=384m"]
            self._daemon(f"task_manager{number}", "taskexecutor.TaskManagerRunner", *limits)
        wait("task managers", lambda: self.ask().get("taskmanagers") == MANAGERS)

    def engine_flags(self) -> list[str]:
        return [
            "--runner=FlinkRunner",
            f"--flink_master={self.web.removeprefix('http://').partition('/')[0]}",
            f"--flink_job_server_jar={self.parts.jar}",
            f"--parallelism={SLOTS}",
            *(f"--job_server_jvm_properties={setting}" for setting in ["-Xmx1g", *QUICK, *OPENS]),
        ]

    def variables(self) -> dict[str, str]:
        return {}

    def is_idle(self) -> bool:
        seen = self.ask()
        return seen["jobs-running"] == seen["jobs-finished"] == 0

    def _daemon(self, name: str, main: str, *limits: str) -> None:
        place = ["-cp", str(self.parts.jar), f"org.apache.flink.runtime.{main}", "--configDir", str(self.folder)]
        self.run(name, ["java", *OPENS, *QUICK, *limits, *place])


def settings(rpc: int, web: int) -> dict[str, str]:
    """Of all processes. A job whose task fails starts again from its shuffles, or from its beginning."""
    return {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": str(rpc),
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.memory.process.size": "1g",
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": str(web),
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.numberOfTaskSlots": "1",
        "taskmanager.cpu.cores": "1.0",
        "heartbeat.interval": "3000",
        "heartbeat.timeout": "15000",
        "restart-strategy": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": "4",
        "restart-strategy.fixed-delay.delay": "1 s",
        **{f"taskmanager.memory.{name}": value for name, value in MEMORY.items()},
    }


def written(values: Mapping[str, str]) -> str:
    """The lines of a flink-conf.yaml."""
    return "".join(f"{name}: {value}\n" for name, value in values.items())
