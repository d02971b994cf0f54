"""What make calls: set up the environment, execute the notebooks, build the pages."""
