package orbitmq;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** One orbit-broker process with its embedded name server, its own ports and its own store. */
final class Broker {
    // Below the range the kernel takes outgoing ports from.
    private static final int NAMESRV_PORT = 24876;
    private static final int LISTEN_PORT = 24911;
    static final String NAMESRV = "127.0.0.1:" + NAMESRV_PORT;

    static final long QUESTIONS_EVERY_MS = 2_000;

    private final Path binary;
    private final Path home;
    private Process process;
    private int starts;

    Broker(Path binary, Path home, String extraConf) throws IOException {
        this.binary = binary;
        this.home = home;
        Files.createDirectories(home);
        Files.writeString(home.resolve("broker.conf"), String.join("\n",
            "brokerName=interop", "brokerIP1=127.0.0.1", "bindAddress=127.0.0.1",
            "listenPort=" + LISTEN_PORT, "namesrvListenPort=" + NAMESRV_PORT,
            "storePathRootDir=" + home.resolve("store"), "mappedFileSizeCommitLog=16777216",
            "transactionTimeOut=1000", "transactionCheckInterval=" + QUESTIONS_EVERY_MS, extraConf, ""));
    }

    void start() throws Exception {
        process = new ProcessBuilder(List.of(binary.toString(), "-c", home.resolve("broker.conf").toString()))
            .redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.appendTo(home.resolve("log").toFile()))
            .directory(home.toFile()).start();
        // Not by its port: a killed predecessor's may still be there for a moment.
        starts++;
        long limit = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (log().split("boot success", -1).length <= starts) {
            if (!process.isAlive() || System.nanoTime() > limit) {
                throw new AssertionError("the broker does not start:\n" + log());
            }
            Thread.onSpinWait();
        }
    }

    /** SIGTERM: the exit code. */
    int stop() throws InterruptedException {
        process.destroy();
        if (!process.waitFor(20, TimeUnit.SECONDS)) {
            process.destroyForcibly().waitFor();
            throw new AssertionError("the broker did not stop within 20 s of SIGTERM");
        }
        return process.exitValue();
    }

    /** SIGKILL. */
    void kill() throws InterruptedException {
        process.destroyForcibly().waitFor();
    }

    String log() throws IOException {
        return Files.readString(home.resolve("log"));
    }
}
