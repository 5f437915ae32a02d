"""`python -m ernie_pipeline.registry.serve models:/NAME@champion`: a registered model behind MLflow's agent server.

It imports nothing of its package: the code that is served is the one that lies beside the registered model.
"""

import argparse
import os
import resource
import sys


def _serve(uri: str, host: str, port: int) -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # GOMP's threads spin while they wait, and requests need the CPU
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # idle clients use up the 1,024 that are usual
    import mlflow
    import uvicorn
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model = mlflow.pyfunc.load_model(uri).unwrap_python_model()
    except Exception as error:  # MLflow's, and whatever the model's code raises
        sys.exit(f"error: {uri} cannot be loaded: {' '.join(str(error).split()) or type(error).__name__}")
    uvicorn.run(model.agent_app(uri.removeprefix("models:/")), host=host, port=port)


def _main() -> None:
    if "ernie_pipeline" in sys.modules:  # started as a module: begin anew, before the model's own code is shadowed
        os.execv(sys.executable, [sys.executable, "-P", __file__, *sys.argv[1:]])
    parser = argparse.ArgumentParser(
        prog="python -m ernie_pipeline.registry.serve",
        description="Serve a registered model: OpenAI's /v1/chat/completions and /responses, by MLflow's agent server.",
    )
    parser.add_argument("uri", help="the model as MLflow names it, such as models:/ernie-math-demo@champion")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (127.0.0.1)")
    parser.add_argument(
        "--port", type=int, choices=range(1, 65536), metavar="PORT", default=5001, help="the port to listen at (5001)"
    )
    arguments = parser.parse_args()
    _serve(arguments.uri, arguments.host, arguments.port)


if __name__ == "__main__":
    _main()
