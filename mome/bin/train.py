"""Train a model of the AVSR task with ESPnet's trainer; all options are ESPnet's (--help)."""

from mome.tasks.avsr import AVSRTask

if __name__ == "__main__":
    AVSRTask.main()
