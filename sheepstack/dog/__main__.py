import sys

from sheepstack.dog.main import main

sys.exit(main())
