"""Run a study of many runs: python sweep.py study=quick"""

from dsa.doors.sweep import main

if __name__ == "__main__":
    main()
