"""A standalone Spark cluster on 127.0.0.1: a master and two workers, each a process of its own."""

from typing import ClassVar

from cluster import QUICK, Cluster, free_ports, wait

WORKERS = 2
PACKAGES = ("sun.nio.ch", "java.nio", "java.util", "java.lang.invoke", "java.lang", "sun.security.action")
OPENS = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in PACKAGES]  # Spark 3.2 on Java 17


class SparkCluster(Cluster):
    """Spark itself comes out of the pyspark package."""

    executor: ClassVar[str] = "CoarseGrainedExecutorBackend"
    logs: ClassVar[tuple[str, ...]] = (*Cluster.logs, "work*/app-*/*/stderr")
    master = ""

    def start(self) -> None:
        port, web_port = free_ports(2)
        self.master, self.web = f"spark://127.0.0.1:{port}", f"http://127.0.0.1:{web_port}/json/"
        at = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(web_port)]
        self._daemon("master", "org.apache.spark.deploy.master.Master", *at)
        for number in range(WORKERS):
            place = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0", "--cores", "1", "--memory", "1g"]
            work = ["--work-dir", str(self.folder / f"work{number}"), self.master]
            self._daemon(f"worker{number}", "org.apache.spark.deploy.worker.Worker", *place, *work)
        wait("two workers", lambda: self.ask().get("aliveworkers") == WORKERS)

    def engine_flags(self) -> list[str]:
        return [
            "--runner=SparkRunner",
            f"--spark_master_url={self.master}",
            f"--spark_job_server_jar={self.parts.jar}",
            *(f"--job_server_jvm_properties={setting}" for setting in self._settings()),
        ]

    def variables(self) -> dict[str, str]:
        return {
            "SPARK_HOME": str(self.parts.home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "512m",
            "SPARK_DAEMON_JAVA_OPTS": " ".join(QUICK),
            "SPARK_LOCAL_DIRS": str(self.folder / "local"),
            "SPARK_CONF_DIR": str(self.folder),
        }

    def is_idle(self) -> bool:
        return not self.ask()["activeapps"]  # the driver is in the job server, and gone with it

    def _settings(self) -> list[str]:
        """Of the driver, which lives in the job server, and through it of the executors."""
        spark = {
            "master": self.master,
            "driver.host": "127.0.0.1",
            "default.parallelism": "8",
            "executor.memory": "1g",
            "executor.cores": "1",
            "scheduler.minRegisteredResourcesRatio": "1.0",
            "scheduler.maxRegisteredResourcesWaitingTime": "60s",
            "ui.enabled": "false",
            "executor.extraJavaOptions": " ".join([*OPENS, *QUICK]),
        }
        return ["-Xmx1500m", *QUICK, *(f"-Dspark.{name}={value}" for name, value in spark.items())]

    def _daemon(self, name: str, main: str, *arguments: str) -> None:
        self.run(name, ["bash", str(self.parts.home / "bin/spark-class"), main, *arguments])
